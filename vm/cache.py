"""Where kernels and images are kept: outside the checkout, with size and checksum, built anew at any time.

A kernel is there when its `kernel.json` is: written last, in one piece, after the file it describes was booted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
