"""fsGroup: gives a volume's files to a group (pkg/volume/volume_linux.go).

Files get the group with read and write permission, or only read in a volume that containers cannot
write. Directories also get the setgid bit, so that new files in them belong to the group.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod

_READ_WRITE = 0o660
_READ = 0o440
_DIRECTORY = stat.S_ISGID | 0o110


def group_of(pod: Pod) -> int | None:
    """The pod's fsGroup."""
    return (pod["spec"].get("securityContext") or {}).get("fsGroup")


def user_of(pod: Pod) -> int | None:
    """The user of all containers, if they have the same one (FsUser): a token's file is theirs."""
    shared = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {
        (container.get("securityContext") or {}).get("runAsUser", shared)
        for container in pods.all_containers(pod)
    }
    return users.pop() if len(users) == 1 else None


def policy_of(pod: Pod) -> str:
    """When the files of a volume are given to the group: Always or OnRootMismatch."""
    return (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") or "Always"


def wanted_mode(mode: int, *, writable: bool) -> int:
    """The permissions of a file or directory of the group, of those that it has. mode: st_mode."""
    added = _READ_WRITE if writable else _READ
    if stat.S_ISDIR(mode):
        added |= _DIRECTORY
    return stat.S_IMODE(mode) | added


def give(path: Path, group: int, *, writable: bool, policy: str = "Always") -> None:
    """Gives the volume at path to the group. Raises OSError.

    policy OnRootMismatch leaves a volume alone whose own directory belongs to the group and has
    the permissions already, because walking through a large one takes long.
    """
    if policy == "OnRootMismatch" and _belongs(path.stat(), group, writable):
        return
    for entry in _below(path):
        found = entry.lstat()
        if found.st_gid != group:
            os.chown(entry, -1, group, follow_symlinks=False)
        wanted = wanted_mode(found.st_mode, writable=writable)
        # chown(2) clears setuid and setgid bits, so the mode is set after it.
        if not stat.S_ISLNK(found.st_mode) and stat.S_IMODE(entry.stat().st_mode) != wanted:
            entry.chmod(wanted)


def _belongs(root: os.stat_result, group: int, writable: bool) -> bool:
    mode = stat.S_IMODE(root.st_mode)
    return root.st_gid == group and mode == wanted_mode(root.st_mode, writable=writable)


def _below(path: Path) -> Iterator[Path]:
    yield path
    for base, directories, files in os.walk(path):
        for name in (*directories, *files):
            yield Path(base, name)
