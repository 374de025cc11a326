"""Replaces all files of a volume at once: a reader sees the old set or the new set, never a
mixture.

The layout is that of upstream's AtomicWriter. The files are in a directory with a time in its
name; ..data is a symbolic link to that directory, and each visible name is a symbolic link through
..data. rename(2) replaces ..data atomically, and with it all files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from stat import S_IFREG

from kubewire.components.kubelet.volumes import ownership
from kubewire.components.kubelet.volumes.payload import FileContent, Payload

DATA = "..data"
_DATA_NEW = "..data_tmp"


def write(target: Path, payload: Payload, group: int | None = None) -> bool:
    """Makes target contain exactly payload. Returns False if it already does.

    group: the pod's fsGroup, to which the files belong and which can read them.
    """
    for path in payload:
        _check(path)
    target.mkdir(parents=True, exist_ok=True)
    link = target / DATA
    old = target / link.readlink() if link.is_symlink() else None
    if old is not None and _same(old, _readable(payload, group)):
        return False
    prefix = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=target))
    fresh.chmod(0o755)
    for path, content in payload.items():
        _write_file(fresh / path, content)
    if group is not None:
        ownership.give(target, group, writable=False)
    new_link = target / _DATA_NEW
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(fresh.name)
    new_link.rename(link)
    _link_names(target, payload)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _readable(payload: Payload, group: int | None) -> Payload:
    """The payload with the modes that its files have when they belong to a group."""
    if group is None:
        return payload
    return {
        path: replace(content, mode=ownership.wanted_mode(S_IFREG | content.mode, writable=False))
        for path, content in payload.items()
    }


def _check(path: str) -> None:
    parts = Path(path).parts
    if not parts or Path(path).is_absolute() or ".." in parts or parts[0].startswith(".."):
        raise ValueError(f"invalid path in a volume: {path!r}")


def _write_file(path: Path, content: FileContent) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.data)
    path.chmod(content.mode)
    if content.owner is not None:
        os.chown(path, content.owner, -1)


def _same(directory: Path, payload: Payload) -> bool:
    walk = os.walk(directory)
    files = [Path(base, name) for base, _, names in walk for name in names]
    if {str(file.relative_to(directory)) for file in files} != payload.keys():
        return False
    return all(_holds(directory / path, content) for path, content in payload.items())


def _holds(path: Path, content: FileContent) -> bool:
    found = path.stat()
    if content.owner not in (None, found.st_uid):
        return False
    return path.read_bytes() == content.data and found.st_mode & 0o7777 == content.mode


def _link_names(target: Path, payload: Payload) -> None:
    wanted = {Path(path).parts[0] for path in payload}
    for name in wanted:
        visible = target / name
        if not visible.is_symlink():
            visible.symlink_to(f"{DATA}/{name}")
    for entry in target.iterdir():
        if entry.is_symlink() and entry.name != DATA and entry.name not in wanted:
            entry.unlink()
