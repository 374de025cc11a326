"""The interface of a kernel: how it is built into the cache, and the command that boots it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kubewire.vm import cache
from kubewire.vm.errors import BuildFailed

#: Called with the current step of a build, in a few words.
Progress = Callable[[str], None]
#: Modules that the kernel does not load on demand.
LOAD = ("br_netfilter", "tun")
PACKAGES = Path(__file__).parent.parent / "debian-packages.txt"


@dataclass(frozen=True)
class Boot:
    """memory in MiB. cpus: always one on UML. virtual_time: skip idle time. terminal: use it as the
    console."""

    memory: int = 2048
    cpus: int = 1
    virtual_time: bool = False
    terminal: bool = False


@dataclass(frozen=True)
class Program:
    """The input of kubewire.vm.jail: argv, the host's paths it must see, and settings for the guest
    (guest/init.py)."""

    argv: Sequence[str]
    visible: Sequence[str]
    guest: Mapping[str, Any]


class Kernel(Protocol):
    """One kernel. make() may be interrupted and repeated; it raises BuildFailed."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def virtual_time(self) -> bool:
        """True if it can skip idle time."""
        ...

    @property
    def boot_seconds(self) -> float:
        """The time in which it boots even on a busy machine; after that it counts as hanging."""
        ...

    def recipe(self) -> str:
        """A checksum of everything it is built from."""
        ...

    def make(self, folder: Path, progress: Progress) -> Made:
        """Builds it into a folder of the cache, or finds the one that Debian installed."""
        ...

    def program(self, built: cache.Built, boot: Boot) -> Program:
        """The command that boots it."""
        ...


@dataclass(frozen=True)
class Made:
    """A kernel's file, and its release as uname -r prints it."""

    release: str
    path: Path


def packages(kernel: str) -> str:
    """The lines of vm/debian-packages.txt for one kernel, in the format of the checkout's
    debian-packages.txt."""
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
    """Runs a step of a build. Each line of output goes through shown to progress. Raises
    BuildFailed with the last lines."""
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
