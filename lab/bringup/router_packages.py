"""Provides Debian's BIRD 2, FRR and GoBGP, unpacked into a cache and not installed.

Installing these packages would create users on the machine and start routing daemons in its
network. Unpacked, they are only programs that a lab can run. 15 MB are downloaded once, to
/var/cache/kubewire/routers (without root: ~/.cache/kubewire/routers), and checked by apt's
signatures. They are run from there only while no other user can change the folder.
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
    """The programs are not available; the text says why."""


def directory() -> Path:
    """The folder into which this user unpacks."""
    if os.geteuid() == 0:
        return SYSTEM
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kubewire/routers")


def location() -> Path | None:
    """The root of the file tree with the programs; None if there is none. Does not check who can
    change it; for a lab, this was checked when it was started."""
    return next((folder for folder in (directory(), SYSTEM) if (folder / _COMPLETE).exists()), None)


def find() -> Path | None:
    """As location(), but None also if another user can change the folder; ensure() raises an error
    for it then."""
    folder = location()
    with contextlib.suppress(apt.Untrusted):
        if folder is not None:
            apt.require_own(folder)
            return folder
    return None


def ensure() -> Path:
    """The folder with the programs; unpacks them first if necessary. Raises NoRouters."""
    try:
        if (found := location()) is not None:
            apt.require_own(found)
            return found
        if shutil.which("apt-get") is None:
            raise NoRouters(
                "this machine has no apt-get (it is not a Debian), so the Debian packages "
                f"{', '.join(PACKAGES[:3])} cannot be downloaded"
            )
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
    """Environment variables with which the programs find their libraries."""
    libraries = f"{folder}/usr/lib/{os.uname().machine}-linux-gnu"
    return {"LD_LIBRARY_PATH": f"{libraries}:{libraries}/frr"}
