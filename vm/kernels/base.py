"""What every kernel has: a place in the cache, a way to be built, a command that boots it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kubewire.vm import cache
from kubewire.vm.errors import BuildFailed

#: Called with what a build is at, in a few words.
Progress = Callable[[str], None]
#: Modules that nothing loads by itself when it is needed.
LOAD = ("br_netfilter", "tun")
PACKAGES = Path(__file__).parent.parent / "debian-packages.txt"


@dataclass(frozen=True)
class Boot:
    """How to boot: memory in MiB, CPUs (one on UML), whether idle time is skipped, who has the console."""

    memory: int = 2048
    cpus: int = 1
    virtual_time: bool = False
    terminal: bool = False


@dataclass(frozen=True)
class Program:
    """What kubewire.vm.jail runs: argv, what it must see of the host, and what the guest is told (guest/init.py)."""

    argv: Sequence[str]
    visible: Sequence[str]
    guest: Mapping[str, Any]


class Kernel(Protocol):
    """One kernel. make() may be interrupted and begun again; it raises BuildFailed."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def virtual_time(self) -> bool:
        """Whether it can skip idle time."""
        ...

    @property
    def boot_seconds(self) -> float:
        """Within which it is up on a machine that has much else to do; one that is not hangs."""
        ...

    def recipe(self) -> str:
        """A checksum of what it is built from."""
        ...

    def make(self, folder: Path, progress: Progress) -> Made:
        """Build it into a folder of the cache, or find it where Debian put it."""
        ...

    def program(self, built: cache.Built, boot: Boot) -> Program:
        """How to boot it."""
        ...


@dataclass(frozen=True)
class Made:
    """A kernel's file and its release as uname -r has it."""

    release: str
    path: Path


def packages(kernel: str) -> str:
    """The lines of vm/debian-packages.txt for one kernel, in the form of the checkout's debian-packages.txt."""
    return "\n".join(_lines(PACKAGES.read_text(), kernel))


def _lines(listing: str, kernel: str) -> Iterator[str]:
    for line in listing.splitlines():
        words = line.split()
        if words and not words[0].startswith("#") and kernel in words[2:]:
            yield " ".join(words[:2])


def run(
    command: Sequence[str],
    progress: Progress,
    *,
    shown: Callable[[str], str] = str.strip,
    cwd: Path | None = None,
) -> str:
    """A step of a build; each line of output goes through shown to progress. Raises BuildFailed with its last words."""
    last: list[str] = []
    environment = os.environ | {"LC_ALL": "C", "MAKEFLAGS": ""}
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            errors="replace",
        )
    except OSError as error:
        raise BuildFailed(
            f"{command[0]}: {error.strerror}; kubewire vm build as root installs it",
        ) from None
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            last = [*last[-14:], line.rstrip()]
            if what := shown(line):
                progress(what)
    if process.returncode:
        output = "\n".join(f"  | {line}" for line in last)
        raise BuildFailed(
            f"{' '.join(map(str, command[:5]))} failed with exit code {process.returncode}\n{output}",
        )
    return "\n".join(last)
