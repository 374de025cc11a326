"""The cache of kernels: outside the checkout, with size and checksum, and always safe to delete and
rebuild.

A kernel is complete when its `kernel.json` exists: that file is written last, atomically, after the
kernel was booted.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: The file beside kernel.json that records on which machines the kernel runs, by machine().
VERDICTS = "machines.json"
#: Kernels that root has built; all users may read them.
SYSTEM = Path("/var/cache/kubewire/vm")


def directory() -> Path:
    """The folder this user builds in: $KUBEWIRE_VM_CACHE, SYSTEM for root, else kubewire/vm in the
    user's cache."""
    if chosen := os.environ.get("KUBEWIRE_VM_CACHE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return SYSTEM
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kubewire/vm")


def directories() -> list[Path]:
    """The folders that are searched: the user's own, then root's unless $KUBEWIRE_VM_CACHE is
    set."""
    return (
        [directory()]
        if os.environ.get("KUBEWIRE_VM_CACHE")
        else list(dict.fromkeys([directory(), SYSTEM]))
    )


@dataclass(frozen=True)
class Built:
    """A kernel that was built and booted here. features: the result of trying each inside it.

    recipe: checksum of everything it was built from; after a change it must be rebuilt. probes:
    checksum of the list of features; after a change it must only be tested again.
    """

    release: str
    path: str
    size: int
    sha256: str
    recipe: str
    probes: str
    seconds: float
    features: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Built | None:
        """None if there is no such file, or this version cannot read it."""
        try:
            return cls(**json.loads((folder / "kernel.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, folder: Path) -> None:
        unfinished = folder / "kernel.json.new"
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.replace(folder / "kernel.json")


@dataclass(frozen=True)
class Verdict:
    """Whether a kernel runs on a machine. path, sha256, recipe: as in Built.

    why: the reason why it does not, in one line; "" if it does.
    """

    path: str
    sha256: str
    recipe: str
    why: str = ""

    @classmethod
    def load(cls, folder: Path) -> Verdict | None:
        """The verdict for this machine, or None."""
        try:
            return cls(**json.loads((folder / VERDICTS).read_text())[machine()])
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def holds(self) -> bool:
        """True if the kernel's file is unchanged."""
        try:
            return sha256(Path(self.path)) == self.sha256
        except OSError:
            return False

    def save(self, folder: Path) -> None:
        """Adds it to those of other machines: a cache may be copied from one machine to another."""
        try:
            verdicts = dict(json.loads((folder / VERDICTS).read_text()))
        except (OSError, ValueError, TypeError):
            verdicts = {}
        unfinished = folder / f"{VERDICTS}.new"
        unfinished.write_text(json.dumps(verdicts | {machine(): asdict(self)}, indent=1) + "\n")
        unfinished.replace(folder / VERDICTS)


def machine() -> str:
    """A checksum of the values that decide whether a kernel runs: this machine's CPU with flags,
    and its kernel."""
    return digest(platform.machine(), platform.release(), *cpu(Path("/proc/cpuinfo").read_text()))


def cpu(text: str) -> list[str]:
    """Model and flags of the first CPU in /proc/cpuinfo."""
    first, _, _ = text.partition("\n\n")
    fields = (line.partition(":") for line in first.splitlines())
    values = {name.strip(): value.strip() for name, _, value in fields}
    return [
        values.get(name, "")
        for name in ("vendor_id", "cpu family", "model", "model name", "flags", "Features")
    ]


def sha256(path: Path) -> str:
    """The digest of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: str) -> str:
    """A short checksum of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def size_of(folder: Path) -> int:
    """The size of all files below a folder, in bytes."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
