"""Makes files that images have and this machine lacks, for mounts of type "tools"."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from kubewire.components.base.sources import IMPORTED_FROM

#: Applets without a link: no container needs them, and some would affect the lab.
_LEFT_OUT = {"init", "linuxrc", "busybox"}


def install(directory: Path) -> None:
    """Fills directory with busybox/ (a link per applet), if it is installed, and with agnhost."""
    directory.mkdir(parents=True, exist_ok=True)
    if (busybox := shutil.which("busybox")) is not None:
        _link_applets(directory / "busybox", busybox)
    _write_launcher(directory / "agnhost", "kubewire.components.agnhost.main")


def _link_applets(directory: Path, busybox: str) -> None:
    directory.mkdir(exist_ok=True)
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in {*listed.stdout.split(), "busybox"} - (_LEFT_OUT - {"busybox"}):
        link = directory / applet
        link.unlink(missing_ok=True)
        link.symlink_to(busybox)


def _write_launcher(path: Path, module: str) -> None:
    """Writes a script for shells in a container.

    `command: [/agnhost, ...]` and kubectl exec do not use it, because the program is forked for
    them.
    """
    program = f"import sys; sys.path.insert(0, {str(IMPORTED_FROM)!r}); "
    program += f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    path.chmod(0o755)
