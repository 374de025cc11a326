"""Sets up a pod's volumes on the node's disk, and removes them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kernel import namespaces
from kubewire.components.kubeapi.quantity import value
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.volumes import atomic_writer, ownership
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.payload import MountProblem, VolumeSources, volume_payload

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import EmptyDirVolumeSource, Pod, Volume

#: The kinds of volumes whose content the kubelet writes, and which containers can only read.
WRITTEN = ("configMap", "secret", "projected", "downwardAPI")

_NO_IMAGE_VOLUMES = (
    "no volume plugin matched: image volumes are not supported, because an image here is a program "
    "of this machine and has no files of its own to mount; a ConfigMap or a hostPath volume can "
    "hold the files (docs/deviations.md)"
)


def set_up(pod: Pod, directories: Directories, sources: VolumeSources) -> None:
    """Sets up all volumes of the pod, or updates the content of those that exist.

    Raises MountProblem, with upstream's MountVolume.SetUp text, for the first volume that fails.
    """
    for volume in pod["spec"].get("volumes") or []:
        try:
            _set_up_volume(pod, volume, directories, sources)
        except (MountProblem, OSError, ValueError) as error:
            text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
            raise MountProblem(text) from error


def _set_up_volume(
    pod: Pod,
    volume: Volume,
    directories: Directories,
    sources: VolumeSources,
) -> None:
    path = directories.volume(pods.uid(pod), volume)
    if "image" in volume:
        raise MountProblem(_NO_IMAGE_VOLUMES)
    if path is None:
        kinds = ", ".join(key for key in volume if key != "name")
        raise MountProblem(f"no volume plugin matched: {kinds} volumes are not supported")
    if "hostPath" in volume:
        check_host_path(path, volume["hostPath"].get("type") or "")
    elif "emptyDir" in volume:
        _empty_dir(path, volume["emptyDir"] or {}, ownership.group_of(pod))
    elif any(kind in volume for kind in WRITTEN):
        group = ownership.group_of(pod)
        atomic_writer.write(path, volume_payload(pod, volume, sources), group)


def _empty_dir(path: Path, source: EmptyDirVolumeSource, group: int | None) -> None:
    """Makes the directory, and gives it to the group once: its content is the pod's."""
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    if source.get("medium") == "Memory" and not os.path.ismount(path):
        limit = source.get("sizeLimit")
        size = f",size={value(limit)}" if limit and value(limit) else ""
        namespaces.mount("tmpfs", path, "tmpfs", 0, f"mode=0777{size}")
    if is_new:
        path.chmod(0o777)
        if group is not None:
            ownership.give(path, group, writable=True)


_HOST_PATH_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "FileOrCreate": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket file"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


def check_host_path(path: Path, kind: str) -> None:
    """Checks the type of a hostPath; the OrCreate types create what is missing.

    Raises MountProblem.
    """
    if kind not in _HOST_PATH_CHECKS:
        return
    if not path.exists():
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, mode=0o755)
        elif kind == "FileOrCreate":
            path.touch(0o644)
    test, complaint = _HOST_PATH_CHECKS[kind]
    if not path.exists() or not test(path.stat().st_mode):
        raise MountProblem(f"hostPath type check failed: {path} {complaint}")


def sub_path(volume: Path, relative: str) -> Path:
    """The path volume/relative, created as a directory if it is missing.

    Raises MountProblem if it leads out of the volume.
    """
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise MountProblem(f"must not contain '..': {relative!r}")
    target = volume / relative
    resolved = target.resolve()
    base = volume.resolve()
    if base != resolved and base not in resolved.parents:
        raise MountProblem(f"subpath {relative!r} not within volume path {str(volume)!r}")
    if not target.exists():
        target.mkdir(parents=True, mode=0o750)
    return resolved


def tear_down(uid: str, directories: Directories) -> None:
    """Unmounts and removes all files of the pod; succeeds if nothing exists."""
    base = directories.pod(uid)
    if not base.exists():
        return
    for target in sorted(_mounts_below(base), reverse=True):
        namespaces.unmount(target, lazy=True)
    shutil.rmtree(base, ignore_errors=True)


def _mounts_below(base: Path) -> list[str]:
    prefix = f"{base}/"
    with open("/proc/self/mountinfo") as table:
        return [line.split()[4] for line in table if line.split()[4].startswith(prefix)]
