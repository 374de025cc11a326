"""Makes files that images have and this machine lacks, for mounts of type "tools"."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from kubewire.components.base.sources import IMPORTED_FROM

#: Applets without a link: no container needs them, and some would affect the lab.
_LEFT_OUT = {"init", "linuxrc", "busybox"}
#: The shell of the busybox image. Upstream's passes every variable on to its children,
#: but Debian's drops those whose names are no identifiers, as keys of a ConfigMap may
#: be. bash passes them on, so it takes the place of the shell where there are any.
_SHELL = """\
#!/bin/bash
while IFS= read -r -d '' variable; do
    case ${{variable%%=*}} in
    [!a-zA-Z_]* | *[!a-zA-Z0-9_]*) exec -a sh /bin/bash --posix "$@" ;;
    esac
done </proc/self/environ
exec -a sh {busybox} "$@"
"""
#: A certificate for localhost and its key, which test images have; they protect nothing.
_CERTIFICATES = IMPORTED_FROM / "kubewire/components/agnhost/certificates"


def install(directory: Path) -> None:
    """Fills directory with busybox/ (a link per applet) and single applets, if it is installed, and
    with the files of the test images."""
    directory.mkdir(parents=True, exist_ok=True)
    if (busybox := shutil.which("busybox")) is not None:
        _link_applets(directory / "busybox", busybox)
        _link(directory / "sysctl", busybox)
        for shell in (directory / "sh", directory / "busybox" / "sh"):
            shell.unlink(missing_ok=True)
            shell.write_text(_SHELL.format(busybox=busybox))
            shell.chmod(0o755)
    _write_launcher(directory / "agnhost", "main")
    _write_launcher(directory / "agnhost-2", "second")
    for name in ("localhost.crt", "localhost.key"):
        shutil.copyfile(_CERTIFICATES / name, directory / name)
    _write_nonewprivs(directory)


def _link_applets(directory: Path, busybox: str) -> None:
    directory.mkdir(exist_ok=True)
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in {*listed.stdout.split(), "busybox"} - (_LEFT_OUT - {"busybox"}):
        _link(directory / applet, busybox)


def _link(link: Path, target: str) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _write_nonewprivs(directory: Path) -> None:
    """Writes the program of the image nonewprivs: it says its effective user, and is setuid root.

    The kernel ignores the bit of a script, so the script asks a copy of id(1) that has it.
    """
    setuid = directory / "nonewprivs-id"
    setuid.unlink(missing_ok=True)
    shutil.copyfile("/usr/bin/id", setuid)
    setuid.chmod(0o4755)
    script = directory / "nonewprivs"
    script.write_text('#!/bin/sh\necho "Effective uid: $(/usr/local/bin/nonewprivs-id -u)"\n')
    script.chmod(0o755)


def _write_launcher(path: Path, function: str) -> None:
    """Writes a script for shells in a container.

    `command: [/agnhost, ...]` and kubectl exec do not use it, because the program is forked for
    them.
    """
    module = "kubewire.components.agnhost.main"
    program = f"import sys; sys.path.insert(0, {str(IMPORTED_FROM)!r}); "
    program += f"from {module} import {function}; sys.exit({function}(sys.argv[1:]))"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    path.chmod(0o755)
