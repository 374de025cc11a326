"""Run a command of the README in a throw-away bare Debian 12: python3 and CA certificates, nothing else.

usage (as root): python3 tests/fresh_machine.py [COMMAND...]
default:         ./kubewire demo, again ./kubewire demo (no set-up the second time), then ./kubewire test

A base tree is made once by mmdebstrap (Debian package of that name) in .cache/fresh-machine. Each run sees an
overlay of it on a tmpfs with a copy of this checkout's committed files, in namespaces of its own; it vanishes
with them. The machine's way to the package registries (apt sources, pip settings, certificates, resolver) is
passed in: it is not part of what is tested.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / ".cache/fresh-machine/base"
PASSED_IN = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/apt.conf.d",
    "/root/.config/pip",
    "/root/.pip",
)
README_COMMANDS = (("./kubewire", "demo"), ("./kubewire", "demo"), ("./kubewire", "test"))


def base_tree() -> Path:
    """The bare root file system; made when it is not there."""
    if not (BASE / "etc/debian_version").exists():
        if shutil.which("mmdebstrap") is None:
            sys.exit("fresh machine: there is no mmdebstrap on this machine; on Debian: apt install mmdebstrap")
        shutil.rmtree(BASE, ignore_errors=True)
        BASE.parent.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,ca-certificates", "bookworm"]
        subprocess.run([*command, str(BASE)], check=True)
    return BASE


def copy_checkout(target: Path) -> None:
    """The committed state, as a user's clone has it."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(target)], check=True)


def run(commands: Sequence[Sequence[str]]) -> int:
    """Run the commands one after another in one fresh machine; the first failing exit code, or 0."""
    base = base_tree()
    with (
        tempfile.TemporaryDirectory(prefix="kw-fresh-") as checkout,
        tempfile.TemporaryDirectory(prefix="kw-root-", dir="/dev/shm") as scratch,
    ):
        copy_checkout(Path(checkout) / "kubewire")
        child = os.fork()
        if child == 0:
            try:
                os._exit(_inside(base, Path(checkout) / "kubewire", Path(scratch), commands))
            except BaseException as error:
                print(f"fresh machine: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _inside(base: Path, checkout: Path, scratch: Path, commands: Sequence[Sequence[str]]) -> int:
    from kubewire.components.kernel import namespaces as ns

    ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC)
    init = os.fork()
    if init:
        return os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    _enter_root(base, checkout, scratch)
    ns.set_hostname("fresh")
    environment = {
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
    }
    for command in commands:
        began = time.monotonic()
        code = subprocess.run(command, cwd="/srv/kubewire", env=environment).returncode
        print(f"fresh machine: {' '.join(command)}: exit code {code}, {time.monotonic() - began:.1f} s", flush=True)
        if code:
            return code
    return 0


def _enter_root(base: Path, checkout: Path, scratch: Path) -> None:
    from kubewire.components.kernel import namespaces as ns

    held = os.open(checkout, os.O_PATH)
    ns.mount("fresh", scratch, "tmpfs")
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    root = scratch / "root"
    ns.mount("fresh", root, "overlay", 0, f"lowerdir={base},upperdir={scratch}/upper,workdir={scratch}/work")
    for name in ("proc", "sys", "dev", ".old"):
        (root / name).mkdir(exist_ok=True)
    ns.mount("proc", root / "proc", "proc")
    ns.mount("sysfs", root / "sys", "sysfs")
    ns.bind("/dev", root / "dev", recursive=True)
    shutil.rmtree(root / "etc/apt/sources.list.d", ignore_errors=True)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for path in PASSED_IN:
        _copy(Path(path), Path(f"{root}{path}"))
    shutil.copytree(f"/proc/self/fd/{held}", root / "srv/kubewire", symlinks=True)
    os.chdir(root)
    ns.pivot_root(".", ".old")
    os.chdir("/")
    ns.unmount("/.old", lazy=True)


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        target.unlink(missing_ok=True)
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(run([sys.argv[1:]] if len(sys.argv) > 1 else README_COMMANDS))
