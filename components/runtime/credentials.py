"""Sets user, groups and capabilities of a process (credentials(7), capabilities(7))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from kubewire.components.kernel import namespaces as ns

from .spec import ProcessSpec, StartError

# fmt: off
#: The capabilities in the order of their numbers in <linux/capability.h>.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)
# fmt: on
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522


def apply(spec: ProcessSpec) -> None:
    """Makes this process the spec's user, with its groups and capabilities. Raises StartError."""
    user = spec.user
    group = spec.group
    try:
        uid, primary, home_groups = _lookup_user(user)
        gid = _lookup_group(group) if group is not None else primary
    except KeyError as err:
        text = str(err)
        if err.args == (user,):
            text = f"unable to find user {user}: no matching entries in passwd file"
        raise StartError(text, "user") from None
    try:
        if spec.capabilities is not None:
            _drop_bounding(spec.capabilities)
        if spec.groups or user is not None or group is not None:
            _set_groups(sorted({*home_groups, *spec.groups}))
        if gid is not None:
            os.setresgid(gid, gid, gid)
        if uid is not None:
            os.setresuid(uid, uid, uid)
        if spec.capabilities is not None and not uid:
            _keep(spec.capabilities)
        if spec.no_new_privileges:
            ns.set_no_new_privileges()
    except OSError as err:
        text = f"cannot become user {user}, group {group}: {err.strerror}"
        raise StartError(text, "user", err.errno or 0) from None


def capability_mask(names: Sequence[str]) -> int:
    """The bit mask of capabilities, with or without CAP_. Raises StartError for an unknown name."""
    mask = 0
    for name in names:
        short = name.upper().removeprefix("CAP_")
        if short not in CAPABILITIES:
            raise StartError(f"unknown capability {name!r}", "capabilities")
        mask |= 1 << CAPABILITIES.index(short)
    return mask


def _lookup_user(user: int | str | None) -> tuple[int | None, int | None, list[int]]:
    if user is None:
        return None, None, []
    import grp
    import pwd

    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        if isinstance(user, int):
            return user, 0, []
        raise KeyError(user) from None
    groups = [g.gr_gid for g in grp.getgrall() if entry.pw_name in g.gr_mem]
    return entry.pw_uid, entry.pw_gid, groups


def _lookup_group(group: int | str) -> int:
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        text = f"unable to find group {group}: no matching entries in group file"
        raise KeyError(text) from None


def _set_groups(groups: list[int]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        # An unprivileged user namespace denies setgroups(2) (user_namespaces(7)). That does no harm
        # if there are no groups to set.
        if groups:
            raise


def _drop_bounding(keep: Sequence[str]) -> None:
    kept = capability_mask(keep)
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(len(CAPABILITIES)):
        if not kept >> number & 1:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _keep(names: Sequence[str]) -> None:
    mask = capability_mask(names)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low = mask & 0xFFFFFFFF
    high = mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
