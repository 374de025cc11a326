"""The sandbox's root file system: a tmpfs with the parts of the machine that contents.py lists.

The lab must be able to mount (containers need it) but must not be able to undo the mounts that hide
the machine. The kernel separates the two by user namespace: a mount namespace belongs to a user
namespace, and when a process in a less privileged user namespace takes a copy of it, every mount in
the copy is locked. A locked mount cannot be unmounted, made writable or moved, not even by root of
the lab (mount_namespaces(7), "Restrictions on mount namespaces"). So the starter's user namespace
must build the root and the lab's user namespace must copy it. The order of the steps follows:

1. `assemble` runs with the rights of the user who starts the lab, in a new mount namespace. It
   builds the root on a staging folder: a tmpfs, read-only binds of the allowed folders, and bound
   device files.
2. `mount_process_views` adds /proc and /sys. The kernel lets a user namespace mount them only where
   its mount namespace already shows complete ones (mount_too_revealing in fs/namespace.c). After
   step 3 none is left, so this comes before it. A process in the lab's pid and network namespaces
   does it, because they show the namespaces of the process that mounts them.
3. `enter` makes the staging folder "/" and detaches the machine's root. From here on no path leads
   to it.
4. The first process of the lab, in the lab's user namespace, copies the mount namespace; the copy's
   mounts are locked (process.py).
5. `finish` mounts the file systems that the lab's user namespace must own: terminals and cgroups.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubewire.components.kernel import namespaces as ns
from kubewire.lab.sandbox.contents import (
    DEVICES,
    ETC,
    FOLDERS,
    LINKS,
    SYSTEM,
    Contents,
    Shared,
    generated,
    topmost,
)

#: The root that containers start from, visible on every host: /etc and empty folders, no mounts.
IMAGE = Path("/.image")
#: Files of the lab process and its components: runtime socket, tools, the lab file.
LAB = Path("/var/lib/kubewire")
LOGS = Path("/var/log/kubewire")
_STAGING = Path("/tmp")
#: Symbolic links that are followed on one path, as in Linux (MAXSYMLINKS).
_MOST_LINKS = 40


class UnusableShare(OSError):
    """An entry of `share` cannot be made visible; str() names the path and the reason."""


def assemble(contents: Contents) -> Path:
    """Build the root and return the folder on which it is mounted.

    The caller must be in a new mount namespace; Linux 5.12 or later. Raises OSError that names the
    mount that failed, and UnusableShare.
    """
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    # Opened before the staging folder is mounted, because it may cover their paths.
    resolved = [path.resolve() for path in contents.programs]
    programs = {path: _hold(path) for path in topmost(resolved)}
    links = dict(link for path in contents.programs for link in links_on(path))
    shared = {entry: _hold_shared(entry) for entry in contents.shared}
    logs = _hold(contents.logs)
    owner = contents.user
    options = f"mode=755,uid={owner},gid={owner}" if owner else "mode=755"
    ns.mount("kubewire", _STAGING, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, options)
    with ns.file_system_user(owner, owner):
        _skeleton(_STAGING)
        (_STAGING / IMAGE.relative_to("/")).mkdir()
        _skeleton(_STAGING / IMAGE.relative_to("/"))
        for folder in (LAB, LOGS):
            (_STAGING / folder.relative_to("/")).mkdir(mode=0o700)
        for name in ("run/netns", "run/lock"):
            (_STAGING / name).mkdir()
        _system(_STAGING)
        _devices(_STAGING / "dev", options)
        for path, descriptor in programs.items():
            _show(descriptor, path)
        for link, destination in links.items():
            _link(link, destination)
        for entry, descriptor in shared.items():
            _share(descriptor, entry, owner)
        _show(logs, LOGS, read_only=False)
    return _STAGING


def system_folders() -> list[Path]:
    """The entries of SYSTEM that are folders on this machine, and not links into another entry."""
    folders = [Path("/", name) for name in SYSTEM]
    return [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]


def links_on(path: Path) -> list[tuple[Path, Path]]:
    """The symbolic links that are followed from "/" to path, as (link, target) pairs.

    Programs find themselves by such paths, for example the python of a virtual environment
    (sys.prefix), so a lab needs the links too.
    """
    links: list[tuple[Path, Path]] = []
    walked = Path("/")
    left = list(path.parts[1:])
    while left and len(links) < _MOST_LINKS:
        here = walked / left.pop(0)
        if not here.is_symlink():
            walked = here
            continue
        target = here.readlink()
        links.append((here, target))
        whole = Path(os.path.normpath(walked / target))
        walked = Path("/")
        left = [*whole.parts[1:], *left]
    return links


def _hold(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _hold_shared(entry: Shared) -> int:
    if entry.path.resolve() == Path("/"):
        raise UnusableShare(
            f"share: {entry.path} is the whole file system; name the folders that the lab needs",
        )
    try:
        return _hold(entry.path)
    except OSError as error:
        raise UnusableShare(f"share: {entry.path}: {error.strerror}") from error


def _skeleton(root: Path) -> None:
    """Make the folders, links and /etc of a root. Copies only what the lab's root may read."""
    for name, mode in FOLDERS.items():
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    for folder in system_folders():
        (root / folder.name).mkdir()
    for name in SYSTEM:
        if (machine := Path("/", name)).is_symlink():
            (root / name).symlink_to(machine.readlink())
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    for name in ETC:
        _copy(Path("/etc", name), root / "etc" / name)
    for name, text in generated().items():
        (root / "etc" / name).write_text(text)


def _copy(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError, PermissionError):
        if source.is_symlink() or not source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target, follow_symlinks=False)
            return
        target.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(source):
            _copy(Path(entry.path), target / entry.name)


def _system(root: Path) -> None:
    """Bind the folders with programs and libraries. Their owner, the machine's root, has no id in
    the lab (except with hostUsers), so files that only root may read stay unreadable."""
    for folder in system_folders():
        ns.bind(folder, root / folder.name, recursive=True)
        ns.restrict(root / folder.name)


def _devices(dev: Path, options: str) -> None:
    """Make /dev from bound device files. The tmpfs below them is mounted nodev, so a device node
    that is created there cannot be opened."""
    ns.mount("tmpfs", dev, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, options)
    for name in DEVICES:
        machine = Path("/dev", name)
        with suppress(OSError):
            if stat.S_ISCHR(machine.stat().st_mode):
                (dev / name).parent.mkdir(exist_ok=True)
                (dev / name).touch()
                ns.bind(machine, dev / name)
    for folder in ("pts", "shm", "mqueue"):
        (dev / folder).mkdir()
    (dev / "shm").chmod(0o1777)
    (dev / "ptmx").symlink_to("pts/ptmx")
    for name, target in {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        (dev / name).symlink_to(f"/proc/self/{target}")


def _show(descriptor: int, path: Path, *, read_only: bool = True) -> None:
    """Bind an open file or folder of the machine at the same path below the root."""
    target = _target(descriptor, path)
    ns.bind(f"/proc/self/fd/{descriptor}", target, recursive=True)
    ns.restrict(target, read_only=read_only)
    os.close(descriptor)


def _link(path: Path, target: Path) -> None:
    """Make a symbolic link at path as the machine has it, unless the root has that path already."""
    link = _STAGING / path.relative_to("/")
    if not (link.is_symlink() or link.exists()):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


def _target(descriptor: int, path: Path) -> Path:
    """Make the empty file or folder on which descriptor is bound."""
    target = _STAGING / path.relative_to("/")
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    return target


def _share(descriptor: int, entry: Shared, lab_root: int) -> None:
    """Bind a path of `share`. Files that root of the lab writes to a writable one belong, on the
    machine, to the owner of the path.

    lab_root: user id of the lab's root as the machine sees it. 0 means that it is the caller, and
    no id mapping is needed.
    """
    if entry.read_only or lab_root == 0:
        _show(descriptor, entry.path, read_only=entry.read_only)
        return
    status = os.fstat(descriptor)
    if status.st_uid == 0:
        raise UnusableShare(
            f"share: {entry.path} belongs to root, and root of the lab would write there as root "
            "of the machine; give it to another user (chown) or set readOnly: true"
        )
    target = _target(descriptor, entry.path)
    with _user_namespace_of(status, lab_root) as users:
        try:
            ns.bind_idmapped(descriptor, target, users)
        except OSError as error:
            raise UnusableShare(
                f"share: {entry.path}: its file system cannot map user ids "
                f"({os.strerror(error.errno or 0)}), so nothing in the lab could write there; "
                "set readOnly: true"
            ) from error
    ns.restrict(target, read_only=False)
    os.close(descriptor)


@contextmanager
def _user_namespace_of(status: os.stat_result, lab_root: int) -> Iterator[int]:
    """Open a user namespace that maps the owner of a file, and no other user, to root of the lab;
    an idmapped mount takes its map from it (mount_setattr(2))."""
    made, makes = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            ns.unshare(ns.CLONE_NEWUSER)
            os.write(makes, b"x")
            signal.pause()
        os._exit(1)
    os.close(makes)
    try:
        if not os.read(made, 1):
            raise UnusableShare("share: the kernel refuses a user namespace for a writable path")
        with ns.file_system_user(os.geteuid(), os.getegid()):
            for name, owner in (("uid_map", status.st_uid), ("gid_map", status.st_gid)):
                Path(f"/proc/{child}/{name}").write_text(f"{owner} {lab_root} 1")
            users = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        yield users
    finally:
        os.close(users)


def mount_process_views(root: Path) -> None:
    """Mount /proc and /sys, which show the calling process's pid and network namespaces."""
    flags = ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC
    ns.mount("proc", root / "proc", "proc", flags)
    ns.mount("sysfs", root / "sys", "sysfs", flags)


def enter(root: Path) -> None:
    """Make root the "/" of this mount namespace and detach the machine's root."""
    os.chdir(root)
    # With the same folder as new_root and put_old, the old root lies on top of the new one and can
    # be unmounted (pivot_root(2), NOTES).
    ns.pivot_root(".", ".")
    ns.unmount(".", lazy=True)
    os.chdir("/")


def finish() -> None:
    """Mount the file systems that the lab's user namespace must own. PID 1 of the lab runs this."""
    quiet = ns.MS_NOSUID | ns.MS_NOEXEC
    ns.mount("devpts", "/dev/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0620")
    with suppress(OSError):  # optional: absent where cgroup v1 owns every controller
        ns.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet | ns.MS_NODEV)
