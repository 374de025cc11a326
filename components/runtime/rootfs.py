"""A container's root: computes its mounts (pure), makes them, and pivots into the root.

The root is an overlay (Documentation/filesystems/overlayfs.rst): a lower layer that containers
share and that nothing writes to, and an upper layer that takes a container's changes. Everything
writable (the upper layer, /dev, /tmp, /run, /dev/shm) is on a single tmpfs, which is mounted only
in the container's own mount namespace. The kernel frees it with the last process, so nothing has
to be cleaned up, even after a crash.

The kernel sets these rules:

- The mounts of the new namespace must be private, or they would propagate to the node's
  (mount_namespaces(7), "Shared subtrees").
- Entering the root is pivot_root(2) and not chroot(2), because a privileged process can leave a
  chroot. The new root must be a mount point. The old root is unmounted lazily, so that no path
  leads to the node's files any more.
- Targets of mounts are resolved inside the root (resolve()). The machine's symbolic links in it,
  such as /var/run -> /run, may be absolute, and would lead to the node's own files.
- In a user namespace, the mounts inherited from the machine are locked: they cannot be unmounted
  or uncovered, and a directory with such a mount below it cannot be an overlay's lower layer
  (mount_namespaces(7)). It is bound read-only instead. Device files cannot be made there either,
  so those in /dev are bind mounts of the node's.
- The read-only remounts come last, because the steps before them write to the layers.

The mounts themselves are those of the OCI runtime specification (config-linux.md) and of runc.
"""

# pathlib is not used, because importing it would cost memory in every container.
# ruff: noqa: PTH101, PTH102, PTH103, PTH110, PTH112, PTH115, PTH116, PTH120, PTH121, PTH211
from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from kubewire.components.kernel import namespaces as ns

from .spec import Mount, Rootfs, StartError

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
#: Directories below those of Layout.over in which containers create files: those of packages, and
#: those that tutorials write to.
WRITTEN = (
    "/bin", "/etc", "/include", "/lib", "/local", "/local/bin", "/local/etc", "/local/lib",
    "/local/sbin", "/local/share", "/sbin", "/share", "/share/nginx", "/share/nginx/html",
    "/src",
)  # fmt: skip
#: Directories of the scratch tmpfs that cover those of the machine: target -> mode.
SCRATCH = {"/dev": 0o755, "/tmp": 0o1777, "/run": 0o755}
#: The default mounts, in order, which are runc's. /sys is read-only unless the container is
#: privileged.
DEFAULT_MOUNTS = (
    Mount("/proc", "proc", "proc"),
    Mount("/dev", "", "scratch"),
    Mount("/dev/pts", "devpts", "devpts", ("newinstance", "ptmxmode=0666", "mode=0620")),
    Mount("/dev/shm", "", "scratch"),
    Mount("/dev/mqueue", "mqueue", "mqueue"),
    Mount("/sys", "sysfs", "sysfs", read_only=True),
    Mount("/tmp", "", "scratch"),
    Mount("/run", "", "scratch"),
)
#: Paths that are made read-only (containerd's default readonlyPaths). Only the machine's root
#: could write to them. No process in a user namespace is that, so there only /proc/sys is mounted,
#: which also has settings of the container's own namespaces.
READ_ONLY = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")
_FLAGS = {
    "proc": ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC,
    "sysfs": ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC,
    "mqueue": ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC,
    "devpts": ns.MS_NOSUID | ns.MS_NOEXEC,
    "tmpfs": ns.MS_NOSUID | ns.MS_NODEV,
}
#: Mounts that a kernel may lack, or refuse in a user namespace; a container then runs without them.
_OPTIONAL = {"/dev/mqueue", "/sys"}


@dataclass(frozen=True)
class Layout:
    """What the fork server knows about the machine.

    lower: the lower layer.
    bases: candidates for the mount point of the scratch tmpfs; the first that exists is used.
    binds: paths that the lower layer does not show (kubewire's code, its interpreter).
    shared: further paths that containers see, mounted as they are here, read-only or not.
    tools: the directory for mounts of type "tools" (tools.py), at the same path in each namespace.
    over: directories that are empty in the lower layer and get an overlay of their own (/usr).
    owned: directory of over -> directories below it that are created in the upper layer. A merged
        directory belongs to the owner of its upper side. Without one, in a user namespace, the
        directories of the machine's root belong to the overflow uid (user_namespaces(7)), and no
        program could create a file there.
    """

    lower: str
    bases: tuple[str, ...]
    binds: tuple[str, ...] = ()
    tools: str = ""
    user_namespace: bool = False
    over: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    owned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def plan(rootfs: Rootfs, layout: Layout) -> list[Mount]:
    """The mounts on the overlay, in order: defaults unless replaced, binds, those of the spec."""
    given = {os.path.normpath(mount.target) for mount in rootfs.mounts}
    programs = [Mount(path, path, read_only=True) for path in layout.binds if path not in given]
    programs += [Mount(path, path) for path in layout.shared if path not in given]
    defaults = [mount for mount in DEFAULT_MOUNTS if mount.target not in given]
    asked = [_tool(mount, layout) if mount.type == "tools" else mount for mount in rootfs.mounts]
    return [*defaults, *programs, *asked]


#: Tools that are copied into the root instead: their setuid bits have no effect on a file system of
#: the lab, which is nosuid.
_COPIED = frozenset({"nonewprivs-id"})


def _tool(mount: Mount, layout: Layout) -> Mount:
    kind = "copy" if mount.source in _COPIED else "bind"
    return replace(mount, type=kind, source=f"{layout.tools}/{mount.source}", read_only=True)


def _copy(source: str, target: str) -> None:
    """Copies a file with its mode. It belongs to the container's root."""
    with open(source, "rb") as program:
        content = program.read()
    file = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    try:
        os.write(file, content)
        os.fchmod(file, stat.S_IMODE(os.stat(source).st_mode))
    finally:
        os.close(file)


def resolve(root: str, target: str, readlink: Callable[[str], str] = os.readlink) -> str:
    """The path of target below root, with symbolic links followed as if root were "/".

    Neither a link nor ".." leads out of root. Raises StartError after 40 links, the kernel's limit
    (path_resolution(7)).
    """
    parts = target.split("/")[::-1]
    done: list[str] = []
    links = 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        try:
            link = readlink("/".join((root, *done, part)))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > 40:
            text = f"mount {target}: too many levels of symbolic links"
            raise StartError(text, f"mount {target}", errno.ELOOP)
        if link.startswith("/"):
            done = []
        parts.extend(link.split("/")[::-1])
    return "/".join((root, *done))


def enter(rootfs: Rootfs, layout: Layout, warn: Callable[[str], None]) -> None:
    """Builds the root in the calling process's own mount namespace, and pivots into it.

    warn: called with a text if the root is built differently than usual. Raises StartError that
    names the mount that failed.
    """
    with _stage("make mounts private"):
        ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    lower = rootfs.lower or layout.lower
    scratch = _mount_scratch(layout)
    root, layers = _mount_root(lower, scratch, layout, warn)
    for mount in plan(rootfs, layout):
        with _stage(f"mount {mount.target}", mount.target in _OPTIONAL):
            _mount(mount, root, scratch, rootfs.privileged)
    _finish_dev(f"{root}/dev")
    if not rootfs.privileged:
        for path in ("/proc/sys",) if layout.user_namespace else READ_ONLY:
            with suppress(OSError):
                ns.bind(root + path, root + path, read_only=True)
    if rootfs.read_only:
        with _stage("remount / read-only"):
            for layer in layers:
                ns.read_only(layer, recursive=False)
    with _stage("pivot_root"):
        # If new_root and put_old are the same, the old root is mounted on top of the new one, and
        # can be unmounted from there (pivot_root(2), NOTES).
        os.chdir(root)
        ns.pivot_root(".", ".")
        ns.unmount(".", lazy=True)
        os.chdir("/")


def _mount_scratch(layout: Layout) -> str:
    for base in layout.bases:
        if os.path.isdir(base):
            with _stage(f"mount tmpfs on {base}"):
                ns.mount("tmpfs", base, "tmpfs", ns.MS_NODEV, "mode=0755")
                for name in ("upper", "work", "root"):
                    os.mkdir(f"{base}/{name}")
            return base
    raise StartError(f"none of {', '.join(layout.bases)} is a directory here", "mount root")


def _mount_root(
    lower: str,
    scratch: str,
    layout: Layout,
    warn: Callable[[str], None],
) -> tuple[str, list[str]]:
    """Mounts the root; returns its path and the writable mounts that it consists of."""
    root = f"{scratch}/root"
    try:
        _mount_overlay(lower, root, scratch, "", layout)
        return root, [root, *_mount_over(lower, root, scratch, layout)]
    except OSError as refused:
        why = os.strerror(refused.errno or 0)
        warn(f"overlay over {lower} refused ({why}): one for each of its directories instead")
        with _stage("mount /"):
            return root, _mount_pieces(lower, root, scratch, layout)


def owned(over: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Layout.owned, with the directories that exist on this machine."""
    result: dict[str, tuple[str, ...]] = {}
    for directory in over:
        result[directory] = tuple(path for path in WRITTEN if os.path.isdir(directory + path))
    return result


def _mount_over(lower: str, root: str, scratch: str, layout: Layout) -> Iterator[str]:
    """Mounts the overlays of layout.over, and yields their paths.

    A directory with one of the machine's mounts below it cannot be a lower layer; it is bound
    instead.
    """
    if lower != layout.lower:  # the spec has another lower root, which contains these directories
        return
    for directory in layout.over:
        target = root + directory
        name = directory.replace("/", "-")
        try:
            for path in ("", *layout.owned.get(directory, ())):
                os.mkdir(f"{scratch}/upper{name}{path}")
            _mount_overlay(directory, target, scratch, name, layout)
            yield target
        except OSError:
            with _stage(f"mount {directory}"):
                ns.bind(directory, target, recursive=True)


def _mount_overlay(lower: str, target: str, scratch: str, name: str, layout: Layout) -> None:
    upper = f"{scratch}/upper{name}"
    work = f"{scratch}/work{name}"
    for directory in (upper, work):
        if not os.path.isdir(directory):
            os.mkdir(directory)
    # In a user namespace, overlayfs must keep its metadata in user.* attributes (overlayfs.rst).
    xattr = ",userxattr" if layout.user_namespace else ""
    options = f"lowerdir={lower},upperdir={upper},workdir={work}{xattr}"
    ns.mount("overlay", target, "overlay", ns.MS_NODEV, options)


def _mount_pieces(lower: str, root: str, scratch: str, layout: Layout) -> list[str]:
    """Makes a root with an overlay per top-level directory; returns its writable mounts.

    This is for a user namespace, where "/" cannot be a lower layer, because locked mounts are
    below it. A directory with the same problem is bound read-only.
    """
    covered = {mount.target for mount in DEFAULT_MOUNTS}
    ns.bind(root, root)  # pivot_root(2) needs a mount point
    layers = [root]
    for entry in os.scandir(lower):
        target = f"{root}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_dir():
            os.mkdir(target)
            if f"/{entry.name}" in covered:
                continue
            try:
                _mount_overlay(entry.path, target, scratch, f"/{entry.name}", layout)
                layers.append(target)
            except OSError:
                ns.bind(entry.path, target, recursive=True)
                ns.read_only(target)
    return layers


def _mount(mount: Mount, root: str, scratch: str, privileged: bool) -> None:
    target = resolve(root, mount.target)
    source = mount.source
    if mount.type == "scratch":
        source = f"{scratch}/{mount.target.strip('/').replace('/', '-')}"
        os.mkdir(source)
        os.chmod(source, SCRATCH.get(mount.target, 0o1777))
    is_file = mount.type in ("bind", "copy") and not stat.S_ISDIR(os.stat(source).st_mode)
    _make_target(target, is_file)
    if mount.type == "copy":
        _copy(source, target)
        return
    if mount.type in ("bind", "scratch"):
        ns.bind(source, target, recursive=mount.recursive and not is_file)
        if mount.read_only:
            ns.read_only(target)
        return
    flags = _FLAGS.get(mount.type, 0)
    if mount.read_only and not (mount.type == "sysfs" and privileged):
        flags |= ns.MS_RDONLY
    ns.mount(source or mount.type, target, mount.type, flags, ",".join(mount.options))


def _make_target(target: str, is_file: bool) -> None:
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if is_file:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    else:
        os.mkdir(target, 0o755)


def _finish_dev(dev: str) -> None:
    """Fills /dev. Device files are bound, because all file systems of the container are nodev."""
    with _stage("fill /dev"):
        for name in DEVICES:
            path = f"{dev}/{name}"
            if not os.path.exists(path):
                _make_target(path, True)
                ns.bind(f"/dev/{name}", path)
        for name, link in DEVICE_LINKS.items():
            if not os.path.lexists(f"{dev}/{name}"):
                os.symlink(link, f"{dev}/{name}")


@contextmanager
def _stage(stage: str, optional: bool = False) -> Iterator[None]:
    """Turns an OSError into a StartError that names the stage, or suppresses it if optional."""
    try:
        yield
    except OSError as err:
        if not optional:
            raise StartError(f"{stage}: {err}", stage, err.errno or 0) from None


def program_binds(lower: str, over: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """The paths that a container's root would not show, without those below another one of them.

    Either the lower layer does not contain them, or a scratch directory covers them (a checkout in
    /tmp).
    """
    whole = os.path.samefile(lower, "/")

    def shown(path: str) -> bool:
        if path.startswith(tuple(f"{directory}/" for directory in SCRATCH)):
            return False
        below = path.startswith(tuple(f"{directory}/" for directory in over))
        return whole or below or path in over

    def inside(path: str, others: list[str]) -> bool:
        return any(path.startswith(f"{other}/") for other in others)

    hidden = sorted({path for path in paths if os.path.exists(path) and not shown(path)})
    return tuple(path for path in hidden if not inside(path, hidden))


def bind_console(terminal: str) -> None:
    """Binds a terminal to /dev/console of the new root, as runc does for a container with a tty."""
    _make_target("/dev/console", True)
    ns.bind(terminal, "/dev/console")
