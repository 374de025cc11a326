"""BIRD 2, FRR and GoBGP as Debian has them, unpacked into a cache and not installed: no user, no service.

15 MB are downloaded once, into /var/cache/kubewire/routers (an ordinary user: ~/.cache/kubewire/routers), checked by
apt's signatures. They are run from there only as long as nobody else can change them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from kubewire.components.base import apt

PACKAGES = ("bird2", "frr", "gobgpd", "libssh-gcrypt-4", "libc-ares2", "libyang2")
SYSTEM = Path("/var/cache/kubewire/routers")
_COMPLETE = "complete"


class NoRouters(Exception):
    """They cannot be had; the text says why."""


def directory() -> Path:
    """Where this user unpacks."""
    if os.geteuid() == 0:
        return SYSTEM
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kubewire/routers")


def location() -> Path | None:
    """The folder they are in, as a root of a file system. Whose it is was checked when the lab was started."""
    return next((folder for folder in (directory(), SYSTEM) if (folder / _COMPLETE).exists()), None)


def find() -> Path | None:
    """The folder they are in; None also when somebody else can change it, about which ensure() complains."""
    folder = location()
    with contextlib.suppress(apt.Untrusted):
        if folder is not None:
            apt.require_own(folder)
            return folder
    return None


def ensure() -> Path:
    """The folder, filled first where that has not been done. Raises NoRouters."""
    try:
        if (found := location()) is not None:
            apt.require_own(found)
            return found
        if shutil.which("apt-get") is None:
            raise NoRouters(f"this is not a Debian: its packages {', '.join(PACKAGES[:3])} cannot be had")
        folder = directory()
        apt.make_own(folder)
    except apt.Untrusted as error:
        raise NoRouters(str(error)) from error
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _COMPLETE).exists():
            _fill(folder)
    return folder


def _fill(folder: Path) -> None:
    try:
        apt.unpack(PACKAGES, folder)
    except apt.Refused as error:
        raise NoRouters(str(error)) from error
    (folder / _COMPLETE).touch()


def environment(folder: Path) -> dict[str, str]:
    """Where their libraries are."""
    libraries = f"{folder}/usr/lib/{os.uname().machine}-linux-gnu"
    return {"LD_LIBRARY_PATH": f"{libraries}:{libraries}/frr"}
