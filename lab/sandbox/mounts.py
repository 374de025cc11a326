"""The sandbox's file system: a tmpfs with what contents.py lists of the machine, and nothing else.

Two user namespaces take part, and the order of the steps is what keeps them apart (user_namespaces(7) and
mount_namespaces(7), "Restrictions on mount namespaces"):

1. `assemble` runs as whoever started the lab, in a mount namespace of its own. It makes the root on a staging folder:
   a tmpfs, read-only binds of the allowed folders, bound device files.
2. `mount_process_views` adds /proc and /sys. The kernel gives them to a user namespace only if the mount namespace it
   leaves shows them whole, so this happens before step 3, by a process in the lab's pid and network namespaces.
3. `enter` makes the staging folder "/" and detaches the machine's root. From here on no path leads to it.
4. The first process of the lab, in the lab's user namespace, takes a copy of the mount namespace. The kernel locks
   every mount in the copy: nobody inside can unmount one, make it writable or look below it.
5. `finish` mounts what only the lab's own user namespace may own: terminals, message queues, cgroups.
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
from kubewire.lab.sandbox.contents import DEVICES, ETC, FOLDERS, LINKS, SYSTEM, Contents, Shared, generated, topmost

#: The root that containers start from, seen from every host: /etc and empty folders, no mounts.
IMAGE = Path("/.image")
#: What belongs to the lab process and its components: runtime socket, tools, the lab file.
LAB = Path("/var/lib/kubewire")
LOGS = Path("/var/log/kubewire")
_STAGING = Path("/tmp")
#: On one path, as Linux counts (MAXSYMLINKS).
_MOST_LINKS = 40


class UnusableShare(OSError):
    """An entry of `share` that cannot be shown; str() names the path and the reason."""


def assemble(contents: Contents) -> Path:
    """Make the root and return the folder it is mounted on. Needs a mount namespace of its own; Linux 5.12.

    Raises OSError naming the mount that failed, UnusableShare.
    """
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    # Held by descriptor: the staging folder may cover their paths.
    programs = {path: _hold(path) for path in topmost([path.resolve() for path in contents.programs])}
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
        for link, says in links.items():
            _link(link, says)
        for entry, descriptor in shared.items():
            _share(descriptor, entry, owner)
        _show(logs, LOGS, read_only=False)
    return _STAGING


def system_folders() -> list[Path]:
    """Those of SYSTEM that are folders of this machine and not links into one of the others."""
    folders = [Path("/", name) for name in SYSTEM]
    return [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]


def links_on(path: Path) -> list[tuple[Path, Path]]:
    """The symbolic links that one follows on the way from "/" to path, each with what it says.

    A program may be known by such a path, as a virtual environment's python is (sys.prefix), so a lab has these links.
    """
    links: list[tuple[Path, Path]] = []
    walked, left = Path("/"), list(path.parts[1:])
    while left and len(links) < _MOST_LINKS:
        here = walked / left.pop(0)
        if not here.is_symlink():
            walked = here
            continue
        says = here.readlink()
        links.append((here, says))
        whole = Path(os.path.normpath(walked / says))
        walked, left = Path("/"), [*whole.parts[1:], *left]
    return links


def _hold(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _hold_shared(entry: Shared) -> int:
    if entry.path.resolve() == Path("/"):
        raise UnusableShare(f"share: {entry.path} is the machine's whole file system; name what the lab needs of it")
    try:
        return _hold(entry.path)
    except OSError as error:
        raise UnusableShare(f"share: {entry.path}: {error.strerror}") from error


def _skeleton(root: Path) -> None:
    """Folders, links and /etc of a root. Only what everybody may read on the machine is copied."""
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
    """Programs and libraries. Their owner, the machine's root, is nobody inside (except with hostUsers): what only
    root may read on the machine stays unread."""
    for folder in system_folders():
        ns.bind(folder, root / folder.name, recursive=True)
        ns.restrict(root / folder.name)


def _devices(dev: Path, options: str) -> None:
    """A /dev of bound device files: the tmpfs below them opens none, so a device node made there is useless."""
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
    """Bind an open file or folder of the machine to its own path below the root."""
    target = _target(descriptor, path)
    ns.bind(f"/proc/self/fd/{descriptor}", target, recursive=True)
    ns.restrict(target, read_only=read_only)
    os.close(descriptor)


def _link(path: Path, says: Path) -> None:
    """The link that the machine has at path, where the root has nothing yet."""
    link = _STAGING / path.relative_to("/")
    if not (link.is_symlink() or link.exists()):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(says)


def _target(descriptor: int, path: Path) -> Path:
    """An empty file or folder to bind it on."""
    target = _STAGING / path.relative_to("/")
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    return target


def _share(descriptor: int, entry: Shared, lab_root: int) -> None:
    """As the lab file says. What root of the lab writes to a writable one belongs to the owner of the path.

    lab_root: its user id as the machine sees it; 0: that of the caller, who needs no mapping.
    """
    if entry.read_only or lab_root == 0:
        _show(descriptor, entry.path, read_only=entry.read_only)
        return
    status = os.fstat(descriptor)
    if status.st_uid == 0:
        raise UnusableShare(
            f"share: {entry.path} belongs to root, and root of the lab would write there as root of the machine; "
            "give it to another user (chown) or set readOnly: true"
        )
    target = _target(descriptor, entry.path)
    with _user_namespace_of(status, lab_root) as users:
        try:
            ns.bind_idmapped(descriptor, target, users)
        except OSError as error:
            raise UnusableShare(
                f"share: {entry.path}: its file system cannot map user ids ({os.strerror(error.errno or 0)}), so that "
                "nothing in the lab could write there; set readOnly: true"
            ) from error
    ns.restrict(target, read_only=False)
    os.close(descriptor)


@contextmanager
def _user_namespace_of(status: os.stat_result, lab_root: int) -> Iterator[int]:
    """An open user namespace in which the owner of a file, and it alone, is root of the lab (mount_setattr(2))."""
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
    """/proc and /sys of the calling process's pid and network namespaces."""
    flags = ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC
    ns.mount("proc", root / "proc", "proc", flags)
    ns.mount("sysfs", root / "sys", "sysfs", flags)


def enter(root: Path) -> None:
    """Make root the root of this mount namespace's processes and detach the machine's."""
    os.chdir(root)
    # pivot_root(2): with new_root and put_old the same, the old root is stacked on top and can be detached.
    ns.pivot_root(".", ".")
    ns.unmount(".", lazy=True)
    os.chdir("/")


def finish() -> None:
    """The file systems whose owner is the lab's user namespace. Runs as its first process."""
    quiet = ns.MS_NOSUID | ns.MS_NOEXEC
    ns.mount("devpts", "/dev/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0620")
    with suppress(OSError):  # needed by no part yet; absent where cgroup v1 owns every controller
        ns.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet | ns.MS_NODEV)
