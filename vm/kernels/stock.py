"""Debian's package user-mode-linux: nothing to build, modules for most features, but nf_tables only
for bridges."""

from __future__ import annotations

import shutil
from pathlib import Path

from kubewire.vm import cache
from kubewire.vm.errors import BuildFailed
from kubewire.vm.jail import SCRATCH
from kubewire.vm.kernels.base import LOAD, Boot, Made, Program, Progress
from kubewire.vm.kernels.uml import kernel_line

MODULES = Path("/usr/lib/uml/modules")
#: Its nf_tables has no family ip, so iptables must be the legacy one.
LEGACY = {
    f"/etc/alternatives/{tool}": f"/usr/sbin/{tool.replace('tables', 'tables-legacy')}"
    for tool in (
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
    )
}


class Stock:
    name = "uml-stock"
    title = "User-mode Linux as Debian packages it: no nftables, no WireGuard, one CPU; nothing to build"
    virtual_time = False
    boot_seconds = 60.0

    def recipe(self) -> str:
        return cache.digest("package", *LOAD, *LEGACY)

    def make(self, folder: Path, progress: Progress) -> Made:
        program = shutil.which("linux.uml")
        releases = sorted(path.name for path in MODULES.iterdir()) if MODULES.is_dir() else []
        if program is None or not releases:
            raise BuildFailed(
                "the Debian package user-mode-linux is not installed; kubewire vm build as root does it",
            )
        progress(f"found {program}")
        return Made(releases[-1], Path(program))

    def program(self, built: cache.Built, boot: Boot) -> Program:
        modules = MODULES / built.release
        guest = {
            "scratch": str(SCRATCH),
            "lower": "/",
            "insmod": str(modules / "kernel/fs/overlayfs/overlay.ko"),
            "modules": str(modules),
            "load": LOAD,
            "alternatives": LEGACY,
        }
        return Program([built.path, *kernel_line(boot)], [built.path, str(modules)], guest)
