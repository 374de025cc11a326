"""BIRD 2, FRR and GoBGP as Debian has them, unpacked into a cache and not installed: no user, no service.

15 MB are downloaded once, into /var/cache/kubewire/routers (an ordinary user: ~/.cache/kubewire/routers).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("bird2", "frr", "gobgpd", "libssh-gcrypt-4", "libc-ares2", "libyang2")
SYSTEM = Path("/var/cache/kubewire/routers")
_COMPLETE = "complete"
_SECONDS = 180


class NoRouters(Exception):
    """They cannot be had; the text says why."""


def directory() -> Path:
    """Where this user unpacks."""
    if os.geteuid() == 0:
        return SYSTEM
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kubewire/routers")


def find() -> Path | None:
    """The folder they are in, as a root of a file system."""
    return next((folder for folder in (directory(), SYSTEM) if (folder / _COMPLETE).exists()), None)


def ensure() -> Path:
    """The folder, filled first where that has not been done. Raises NoRouters."""
    if (found := find()) is not None:
        return found
    if shutil.which("apt-get") is None:
        raise NoRouters(f"this is not a Debian: its packages {', '.join(PACKAGES[:3])} cannot be had")
    folder = directory()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _COMPLETE).exists():
            _fill(folder)
    return folder


def _fill(folder: Path) -> None:
    download = ["apt-get", "download", *PACKAGES]
    try:
        done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:  # its lists may be old, or not be there at all
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, timeout=_SECONDS)
            done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            raise NoRouters(f"{' '.join(download)} failed: {done.stderr.strip()[-500:]}")
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True, capture_output=True)
            package.unlink()
    except (OSError, subprocess.SubprocessError) as error:
        raise NoRouters(str(error)) from error
    (folder / _COMPLETE).touch()


def environment(folder: Path) -> dict[str, str]:
    """Where their libraries are."""
    libraries = f"{folder}/usr/lib/{os.uname().machine}-linux-gnu"
    return {"LD_LIBRARY_PATH": f"{libraries}:{libraries}/frr"}
