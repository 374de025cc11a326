"""Where kernels and images are kept: outside the checkout, with size and checksum, built anew at any time.

A kernel is there when its `kernel.json` is: written last, in one piece, after the file it describes was booted.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: Beside kernel.json: on which machines the kernel ran, by machine().
VERDICTS = "machines.json"
#: What root builds; everybody may read it.
SYSTEM = Path("/var/cache/kubewire/vm")


def directory() -> Path:
    """Where this user builds: $KUBEWIRE_VM_CACHE, or SYSTEM for root, or kubewire/vm in a user's own cache."""
    if chosen := os.environ.get("KUBEWIRE_VM_CACHE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return SYSTEM
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kubewire/vm")


def directories() -> list[Path]:
    """Where this user looks: the own one, then root's unless a place was chosen."""
    return [directory()] if os.environ.get("KUBEWIRE_VM_CACHE") else list(dict.fromkeys([directory(), SYSTEM]))


@dataclass(frozen=True)
class Built:
    """A kernel that was booted here. features: what it was found to have, by trying inside it.

    recipe: checksum of all that it was built from; another one means: build it anew. probes: checksum of the list of
    features; another one means: only ask it again.
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
        """None when there is none, or one that this version cannot read."""
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

    why: the reason that it does not, in one line; "": it does.
    """

    path: str
    sha256: str
    recipe: str
    why: str = ""

    @classmethod
    def load(cls, folder: Path) -> Verdict | None:
        """What is known about this machine; None when nothing is."""
        try:
            return cls(**json.loads((folder / VERDICTS).read_text())[machine()])
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def holds(self) -> bool:
        """Whether the kernel is the same one still."""
        try:
            return sha256(Path(self.path)) == self.sha256
        except OSError:
            return False

    def save(self, folder: Path) -> None:
        """Beside those of other machines: a cache may be carried from one to another."""
        try:
            verdicts = dict(json.loads((folder / VERDICTS).read_text()))
        except (OSError, ValueError, TypeError):
            verdicts = {}
        unfinished = folder / f"{VERDICTS}.new"
        unfinished.write_text(json.dumps(verdicts | {machine(): asdict(self)}, indent=1) + "\n")
        unfinished.replace(folder / VERDICTS)


def machine() -> str:
    """A checksum of what decides whether a kernel runs: this machine's CPU with flags, its own kernel."""
    return digest(platform.machine(), platform.release(), *cpu(Path("/proc/cpuinfo").read_text()))


def cpu(text: str) -> list[str]:
    """Model and flags of the first CPU in /proc/cpuinfo."""
    first, _, _ = text.partition("\n\n")
    fields = (line.partition(":") for line in first.splitlines())
    values = {name.strip(): value.strip() for name, _, value in fields}
    return [values.get(name, "") for name in ("vendor_id", "cpu family", "model", "model name", "flags", "Features")]


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: str) -> str:
    """A short checksum of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def size_of(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
