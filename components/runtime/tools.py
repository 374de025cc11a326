"""Files that images have and this machine does not: made once per lab, bound into containers (Mount type "tools")."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from kubewire.components.base.sources import IMPORTED_FROM

#: Applets that would change the machine or the lab rather than the container; nothing in an image needs them.
_LEFT_OUT = {"init", "linuxrc", "busybox"}


def install(directory: Path) -> None:
    """Fill directory: busybox/ (a link per applet) when the machine has busybox, agnhost (a launcher)."""
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
    """For shells in a container; `command: [/agnhost, ...]` and kubectl exec are forked and need no launcher."""
    program = f"import sys; sys.path.insert(0, {str(IMPORTED_FROM)!r}); from {module} import main; "
    program += "sys.exit(main(sys.argv[1:]))"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    path.chmod(0o755)
