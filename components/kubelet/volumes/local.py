"""local volumes: their files are given to the pod's fsGroup, as upstream's plugin does it
(pkg/volume/local).

Upstream bind-mounts the volume's path into the pod's directory, and a mount there tells that
another pod uses the volume. Here a symbolic link takes the mount's place, so a later kubelet finds
it, and it goes away with the pod's directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.volumes import ownership
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.payload import MountProblem

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod


@dataclass(frozen=True)
class LocalVolume:
    """A PersistentVolume of the kind local, as a pod uses it. name: the PersistentVolume's."""

    name: str
    path: Path
    read_only: bool = False


def set_up(
    pod: Pod, volume: LocalVolume, directories: Directories, warn: Callable[[str, str], None]
) -> None:
    """Gives the volume to the pod's fsGroup, once for a pod. Raises MountProblem.

    A volume that another pod uses keeps its owner; warn(reason, message) tells of a mismatch.
    """
    link = directories.local_volume(pods.uid(pod), volume.name)
    if link.is_symlink():
        return
    try:
        _give(pod, volume, _is_used(volume, directories), warn)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(volume.path)
    except OSError as error:
        text = f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
        raise MountProblem(text) from error


def _give(pod: Pod, volume: LocalVolume, is_used: bool, warn: Callable[[str, str], None]) -> None:
    group = ownership.group_of(pod)
    if group is None:
        return
    if is_used:
        owner = volume.path.stat().st_gid
        if owner != group:
            text = f"The requested fsGroup is {group}, but the volume {volume.name} has GID {owner}"
            warn("AlreadyMountedVolume", f"{text}. The volume may not be shareable.")
    elif not volume.read_only:
        ownership.give(volume.path, group, writable=True, policy=ownership.policy_of(pod))


def _is_used(volume: LocalVolume, directories: Directories) -> bool:
    links = directories.local_volumes(volume.name)
    return any(link.readlink() == volume.path for link in links)
