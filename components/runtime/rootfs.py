"""A container's root: which mounts (pure), and making them and pivoting into them.

Everything writable (the overlay's upper directory, /dev, /tmp, /run, /dev/shm) lies on one tmpfs which exists
only in the container's mount namespace: the kernel removes it with the last process, nothing is left to delete.
"""

# pathlib would cost every container memory; paths here are the kernel's strings.
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
#: Directories below those of Layout.over in which containers make files: packages' own, and what tutorials write to.
WRITTEN = (
    "/bin", "/etc", "/include", "/lib", "/local", "/local/bin", "/local/etc", "/local/lib", "/local/sbin",
    "/local/share", "/sbin", "/share", "/share/nginx", "/share/nginx/html", "/src",
)  # fmt: skip
#: Directories of the scratch tmpfs that cover the machine's: target -> mode.
SCRATCH = {"/dev": 0o755, "/tmp": 0o1777, "/run": 0o755}
#: The default mounts, in order. runc's, with /sys and /proc/sys read-only unless privileged.
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
#: What only the machine's root may write, whatever its capabilities: containerd's default (readonlyPaths). In a user
#: namespace nobody is that, and a container does without four mounts; /proc/sys has settings of its namespaces, too.
READ_ONLY = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")
_FLAGS = {
    "proc": ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC,
    "sysfs": ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC,
    "mqueue": ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC,
    "devpts": ns.MS_NOSUID | ns.MS_NOEXEC,
    "tmpfs": ns.MS_NOSUID | ns.MS_NODEV,
}
#: May be missing from a kernel or be refused in a user namespace; a container does without.
_OPTIONAL = {"/dev/mqueue", "/sys"}


@dataclass(frozen=True)
class Layout:
    """What the fork server knows about the machine: where the lower layer is and what it does not show.

    bases: the first that is a directory is taken; the scratch tmpfs may cover it.
    binds: paths that lie on other mounts than the lower root's (kubewire's code, its interpreter).
    shared: what else containers see, as it is mounted here: read-only or not.
    tools: directory of what mounts of type "tools" bind (tools.py), under the same path in every namespace.
    over: directories that the lower root has only as empty ones, and that get an overlay each (/usr).
    owned: directory of over -> paths below it that are the container's own from the start. A merged directory belongs
        to the owner of its upper side; without one, a lower directory of the machine's root is nobody's in a user
        namespace, and no program could make a file in it.
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
    """The mounts over the overlay, in order: defaults that the spec does not replace, programs, the spec's."""
    given = {os.path.normpath(mount.target) for mount in rootfs.mounts}
    programs = [Mount(path, path, read_only=True) for path in layout.binds if path not in given]
    programs += [Mount(path, path) for path in layout.shared if path not in given]
    defaults = [mount for mount in DEFAULT_MOUNTS if mount.target not in given]
    asked = [_tool(mount, layout) if mount.type == "tools" else mount for mount in rootfs.mounts]
    return [*defaults, *programs, *asked]


def _tool(mount: Mount, layout: Layout) -> Mount:
    return replace(mount, type="bind", source=f"{layout.tools}/{mount.source}", read_only=True)


def resolve(root: str, target: str, readlink: Callable[[str], str] = os.readlink) -> str:
    """Where target lies below root when symbolic links are followed as if root were "/" (no way out by "..").

    Raises StartError after 40 links, as the kernel would (ELOOP).
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
            raise StartError(f"mount {target}: too many levels of symbolic links", f"mount {target}", errno.ELOOP)
        if link.startswith("/"):
            done = []
        parts.extend(link.split("/")[::-1])
    return "/".join((root, *done))


def enter(rootfs: Rootfs, layout: Layout, warn: Callable[[str], None]) -> None:
    """Build the root in the calling process's own mount namespace and pivot into it.

    Raises StartError naming the mount that failed.
    """
    with _stage("make mounts private"):
        ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    lower = rootfs.lower or layout.lower
    scratch = _mount_scratch(layout)
    root, layers = _mount_root(lower, scratch, layout, warn)
    for mount in plan(rootfs, layout):
        with _stage(f"mount {mount.target}", mount.target in _OPTIONAL):
            _mount_one(mount, root, scratch, rootfs.privileged)
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
        # pivot_root(2): with new_root and put_old the same, the old root is stacked on top and can be detached.
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


def _mount_root(lower: str, scratch: str, layout: Layout, warn: Callable[[str], None]) -> tuple[str, list[str]]:
    """The root and the writable mounts that it consists of."""
    root = f"{scratch}/root"
    try:
        _mount_overlay(lower, root, scratch, "", layout)
        return root, [root, *_mount_over(lower, root, scratch, layout)]
    except OSError as refused:
        warn(
            f"overlay over {lower} refused ({os.strerror(refused.errno or 0)}): one for each of its directories instead"
        )
        with _stage("mount /"):
            return root, _mount_pieces(lower, root, scratch, layout)


def owned(over: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Layout.owned for the directories that are there on this machine."""
    return {directory: tuple(path for path in WRITTEN if os.path.isdir(directory + path)) for directory in over}


def _mount_over(lower: str, root: str, scratch: str, layout: Layout) -> Iterator[str]:
    """The overlays of layout.over, so that a container may change what is in them; yields where they are.

    A directory with a mount of the machine's below it cannot be a lower layer (mount_namespaces(7): it is locked); it
    is bound read-only instead.
    """
    if lower != layout.lower:  # a root of its own, which has them already
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
    upper, work = f"{scratch}/upper{name}", f"{scratch}/work{name}"
    for directory in (upper, work):
        if not os.path.isdir(directory):
            os.mkdir(directory)
    # In a user namespace overlay keeps its marks in user.* attributes (Documentation/filesystems/overlayfs.rst).
    marks = ",userxattr" if layout.user_namespace else ""
    ns.mount("overlay", target, "overlay", ns.MS_NODEV, f"lowerdir={lower},upperdir={upper},workdir={work}{marks}")


def _mount_pieces(lower: str, root: str, scratch: str, layout: Layout) -> list[str]:
    """A root of single overlays. In a user namespace the machine's mounts are locked (mount_namespaces(7)), and a
    directory with a locked mount below it cannot be a lower layer; "/" always has some. Such a directory is bound
    read-only."""
    covered = {mount.target for mount in DEFAULT_MOUNTS}
    ns.bind(root, root)  # pivot_root(2) wants a mount point
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


def _mount_one(mount: Mount, root: str, scratch: str, privileged: bool) -> None:
    target = resolve(root, mount.target)
    source = mount.source
    if mount.type == "scratch":
        source = f"{scratch}/{mount.target.strip('/').replace('/', '-')}"
        os.mkdir(source)
        os.chmod(source, SCRATCH.get(mount.target, 0o1777))
    is_file = mount.type == "bind" and not stat.S_ISDIR(os.stat(source).st_mode)
    _make_target(target, is_file)
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
    """Device files are bound, not made: those on a mount of the container's own cannot be opened (nodev)."""
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
    """Turn an OSError into a StartError naming the stage (or swallow it)."""
    try:
        yield
    except OSError as err:
        if not optional:
            raise StartError(f"{stage}: {err}", stage, err.errno or 0) from None


def program_binds(lower: str, over: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """Those of the paths that a container's root would not show: another file system is mounted there, or the
    container has a scratch directory of its own in the way (a checkout in /tmp)."""
    whole = os.path.samefile(lower, "/")

    def shown(path: str) -> bool:
        if path.startswith(tuple(f"{directory}/" for directory in SCRATCH)):
            return False
        return whole or path.startswith(tuple(f"{directory}/" for directory in over)) or path in over

    hidden = sorted({path for path in paths if os.path.exists(path) and not shown(path)})
    return tuple(path for path in hidden if not any(path.startswith(f"{other}/") for other in hidden))


def bind_console(terminal: str) -> None:
    """Bind a terminal on /dev/console of the root just entered, as runc does for a container with a tty."""
    _make_target("/dev/console", True)
    ns.bind(terminal, "/dev/console")
