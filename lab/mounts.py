"""The sandbox's file system: an overlay over the machine's root, so that nothing a lab writes outlives it.

Runs as PID 1 of fresh mount and pid namespaces.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.machinery import namespaces as ns

#: Where the machine's own root stays visible, read-only; the lower layer of containers' root file systems.
MACHINE_ROOT = "/.host"
UPSTREAM_DNS = "203.0.113.53"
_STAGING = Path("/tmp")
#: Files that a container engine binds over its own: a lab has its own resolver and hosts.
_REPLACED = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
_OWN = ("/proc", "/sys", "/dev", "/tmp", "/run")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun", "kvm", "fuse")


@dataclass(frozen=True)
class MountPoint:
    """One line of /proc/self/mountinfo (proc(5)): where, and of what type."""

    path: str
    fstype: str


def mount_points(text: str) -> list[MountPoint]:
    """Parse mountinfo, in mount order; a path's octal escapes are decoded."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        path = left.split()[4].encode().decode("unicode_escape")
        found.append(MountPoint(path, right.split()[0]))
    return found


def submounts(points: list[MountPoint]) -> list[str]:
    """The machine's own file systems below "/" that an overlay of "/" does not show: /home, /usr, files of a container.

    Only topmost ones, since they are bound with what is below them.
    """
    chosen: list[str] = []
    for point in points:
        path = point.path
        if path in ("/", *_REPLACED) or any(path == own or path.startswith(own + "/") for own in _OWN):
            continue
        if any(path == above or path.startswith(above + "/") for above in chosen):
            continue
        chosen.append(path)
    return chosen


def hidden(paths: list[Path]) -> list[Path]:
    """Those of our own folders (checkout, venv) that the sandbox's fresh /tmp or /run would hide."""
    resolved = sorted({path.resolve() for path in paths})
    return [path for path in resolved if any(path.is_relative_to(own) for own in _OWN)]


def enter_root(state: Path, own_folders: list[Path]) -> None:
    """Make and enter the sandbox's root. state is bound to the same path inside, writable; own_folders, read-only.

    Raises OSError naming the mount that failed.
    """
    points = mount_points(Path("/proc/self/mountinfo").read_text())
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    # Held by descriptor: the staging area below may cover their paths.
    held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in [*hidden(own_folders), state]}
    ns.mount("kubewire", _STAGING, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
    root, upper, work = (_STAGING / name for name in ("root", "upper", "work"))
    for folder in (root, upper, work):
        folder.mkdir()
    _overlay(root, upper, work)
    for mounted in submounts(points):
        with suppress(OSError):  # a mount we may not see (another user's FUSE) is not ours to show
            ns.bind(mounted, f"{root}{mounted}", recursive=True)
            ns.read_only(f"{root}{mounted}")
    _system_mounts(root)
    _own_etc_files(root / "etc")
    for path, descriptor in held.items():
        target = Path(f"{root}{path}")
        target.mkdir(parents=True, exist_ok=True)
        ns.bind(f"/proc/self/fd/{descriptor}", target, recursive=path != state)
        if path != state:
            ns.read_only(str(target))
        os.close(descriptor)
    old = Path(f"{root}{MACHINE_ROOT}")
    old.mkdir(exist_ok=True)
    os.chdir(root)
    ns.pivot_root(".", str(old))
    os.chdir("/")
    for own in ("/proc", "/sys", "/dev", "/run"):
        with suppress(OSError):
            ns.unmount(MACHINE_ROOT + own, lazy=True)
    ns.read_only(MACHINE_ROOT)


def _overlay(root: Path, upper: Path, work: Path) -> None:
    try:
        ns.mount("kubewire", root, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    except OSError:
        # In a user namespace the mounts below "/" are locked, and overlayfs takes no lower layer with such children.
        _assemble(root, upper, work)


#: Folders in which bring-up makes entries. In an overlay a folder belongs to whoever owns its upper side,
#: so those inside are made there first: the machine's root user is nobody in a user namespace.
_WRITABLE = {"etc": (), "opt": (), "root": (), "var": ("lib", "log")}


def _assemble(root: Path, upper: Path, work: Path) -> None:
    """The root piece by piece: overlays of the folders that a lab writes to, read-only binds of the others."""
    ns.mount("kubewire", root, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
    for entry in sorted(Path("/").iterdir()):
        target = root / entry.name
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        elif entry.is_dir():
            target.mkdir()
            if str(entry) not in _OWN:
                _piece(entry, target, upper, work)


def _piece(entry: Path, target: Path, upper: Path, work: Path) -> None:
    layers = [folder / entry.name for folder in (upper, work)]
    try:
        if entry.name in _WRITABLE:
            for inner in ("", *_WRITABLE[entry.name]):
                (layers[0] / inner).mkdir()
            layers[1].mkdir()
            options = f"lowerdir={entry},upperdir={layers[0]},workdir={layers[1]},userxattr"
            ns.mount("kubewire", target, "overlay", 0, options)
            return
    except OSError:
        pass  # a file system mounted below it; shown read-only instead
    ns.bind(entry, target, recursive=True)
    ns.read_only(str(target))


def _system_mounts(root: Path) -> None:
    ns.mount("proc", root / "proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    ns.mount("sysfs", root / "sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    with suppress(OSError):  # needed by no part yet; absent where cgroup v1 owns every controller
        ns.mount("cgroup2", root / "sys/fs/cgroup", "cgroup2", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    ns.mount("tmpfs", root / "tmp", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=1777")
    ns.mount("tmpfs", root / "run", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
    for name in ("netns", "lock"):
        (root / "run" / name).mkdir()
    _devices(root / "dev")


def _own_etc_files(etc: Path) -> None:
    """The lab's resolver is its upstream DNS host; nothing of the machine's names leaks in."""
    for name, content in {
        "resolv.conf": f"nameserver {UPSTREAM_DNS}\n",
        "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        "hostname": "kubewire\n",
    }.items():
        path = etc / name
        path.unlink(missing_ok=True)  # often a link into /run
        path.write_text(content)


def _devices(dev: Path) -> None:
    ns.mount("tmpfs", dev, "tmpfs", ns.MS_NOSUID, "mode=755")
    for name in _DEVICES:
        machine = Path("/dev", name)
        with suppress(OSError):
            if stat.S_ISCHR(machine.stat().st_mode):
                (dev / name).parent.mkdir(exist_ok=True)
                (dev / name).touch()
                ns.bind(machine, dev / name)
    for folder in ("pts", "shm"):
        (dev / folder).mkdir()
    ns.mount("devpts", dev / "pts", "devpts", ns.MS_NOSUID | ns.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    ns.mount("tmpfs", dev / "shm", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=1777")
    (dev / "ptmx").symlink_to("pts/ptmx")
    for name, target in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        (dev / name).symlink_to(target if target.startswith("/") else f"/proc/self/{target}")
