"""User-mode Linux, built from Debian's linux-source-6.1 with uml.config: a kernel that runs as an
ordinary process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubewire.components.base import apt
from kubewire.vm import cache
from kubewire.vm.errors import BuildFailed
from kubewire.vm.jail import SCRATCH, SHARE
from kubewire.vm.kernels.base import Boot, Made, Program, Progress, run

CONFIG = Path(__file__).parent / "uml.config"
PACKAGE = "linux-source-6.1"
SOURCE = Path("/usr/src/linux-source-6.1.tar.xz")
XSTATE = Path(__file__).parent / "host_xstate.h"
#: The number of compiled files with uml.config, for "1200 of about 2100"; it need not be exact.
_ABOUT = 1379


@dataclass(frozen=True)
class Edit:
    """A replacement in the kernel's source; before must occur exactly once."""

    file: str
    before: str
    after: str

    def apply(self, tree: Path) -> None:
        """Raises BuildFailed if the source is a different one. Applied twice, it changes
        nothing."""
        path = tree / self.file
        text = path.read_text()
        if self.after in text:
            return
        if text.count(self.before) != 1:
            raise BuildFailed(
                f"{self.file} of this source is not Linux 6.1's: it has no {self.before!r}, or several",
            )
        path.write_text(text.replace(self.before, self.after))


_REGISTERS = "arch/x86/um/os-Linux/registers.c"
#: host_xstate.h explains their purpose.
EDITS = (
    Edit(
        _REGISTERS,
        "#include <registers.h>\n",
        f'#include <registers.h>\n#include <string.h>\n#include "{XSTATE.name}"\n',
    ),
    Edit(
        _REGISTERS,
        "ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov)",
        "ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, whole_xstate(&iov))",
    ),
)


def kernel_line(boot: Boot) -> list[str]:
    """UML's arguments: no device, the host's files as root, and init (guest/init.py).

    There is no panic=, because a panicking UML aborts at once (panic_exit() in
    arch/um/kernel/um_arch.c).
    """
    console = ["con=null", "con0=fd:0,fd:1"] if boot.terminal else ["con=null", "con0=null,fd:1"]
    time = ["time-travel=inf-cpu"] if boot.virtual_time else []
    root = ["root=hostfs", "rootfstype=hostfs", "rootflags=/", "ro"]
    init = ["init=/usr/bin/python3", "--", "-I", f"{SHARE}/init.py", str(SHARE)]
    return [f"mem={boot.memory}M", *console, "ssl=null", "quiet", *time, *root, *init]


class UML:
    name = "uml"
    title = "User-mode Linux from Debian's linux-source-6.1: every networking feature, one CPU"
    virtual_time = True
    boot_seconds = 60.0

    def recipe(self) -> str:
        return cache.digest(CONFIG.read_text(), XSTATE.read_text(), repr(EDITS))

    def make(self, folder: Path, progress: Progress) -> Made:
        """Unpacks, configures, compiles, and keeps the binary. Completed steps are skipped."""
        target = folder / "linux"
        tree = folder / "build"
        stamp = folder / "recipe"
        if not (target.exists() and stamp.exists() and stamp.read_text() == self.recipe()):
            if not SOURCE.exists():
                raise BuildFailed(
                    f"{SOURCE} is not there; kubewire vm build as root installs linux-source-6.1",
                )
            self._unpack(tree, progress)
            self._configure(tree, progress)
            self._compile(tree, progress)
            shutil.copyfile(tree / "linux", folder / "linux.new")
            (folder / "linux.new").chmod(0o755)
            (folder / "linux.new").replace(target)
            stamp.write_text(self.recipe())
        shutil.rmtree(tree, ignore_errors=True)
        return Made(run([str(target), "--version"], lambda _: None).split()[-1], target)

    def _unpack(self, tree: Path, progress: Progress) -> None:
        if (tree / ".unpacked").exists():
            return
        progress("checking the source")
        try:
            apt.verify_installed(PACKAGE, SOURCE)
        except apt.Refused as error:
            raise BuildFailed(str(error)) from error
        progress("unpacking the source (1.3 GB)")
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        run(["tar", "-C", str(tree), "--strip-components=1", "-xf", str(SOURCE)], progress)
        edit(tree)
        (tree / ".unpacked").touch()

    def _configure(self, tree: Path, progress: Progress) -> None:
        if (tree / ".config").exists() and not (tree / ".configured").exists():
            (tree / ".config").unlink()
        if (tree / ".configured").exists() and (tree / ".configured").read_text() == self.recipe():
            return
        progress("configuring")
        run(["make", "ARCH=um", "defconfig"], progress, shown=_nothing, cwd=tree)
        merge = ["sh", "scripts/kconfig/merge_config.sh", "-m", ".config", str(CONFIG)]
        run(merge, progress, shown=_nothing, cwd=tree)
        run(["make", "ARCH=um", "olddefconfig"], progress, shown=_nothing, cwd=tree)
        if lost := refused(CONFIG.read_text(), (tree / ".config").read_text()):
            raise BuildFailed(
                f"this source does not take these lines of {CONFIG.name}: {', '.join(lost)}",
            )
        (tree / ".configured").write_text(self.recipe())

    def _compile(self, tree: Path, progress: Progress) -> None:
        done = sum(1 for _ in tree.rglob("*.o"))

        def shown(line: str) -> str:
            nonlocal done
            if line.split()[:1] == ["CC"]:
                done += 1
                return f"compiling: {done} of about {max(_ABOUT, done)} files"
            return ""

        run(
            ["make", "ARCH=um", f"-j{os.cpu_count() or 1}", "linux"],
            progress,
            shown=shown,
            cwd=tree,
        )

    def program(self, built: cache.Built, boot: Boot) -> Program:
        guest = {"scratch": str(SCRATCH), "lower": "/", "load": [], "alternatives": {}}
        return Program([built.path, *kernel_line(boot)], [built.path], guest)


def edit(tree: Path) -> None:
    """Applies EDITS to the source. Raises BuildFailed."""
    shutil.copyfile(XSTATE, tree / Path(_REGISTERS).parent / XSTATE.name)
    for change in EDITS:
        change.apply(tree)


def refused(wanted: str, got: str) -> Sequence[str]:
    """Options of uml.config that the configured kernel lacks, because a dependency is not met."""
    have = set(got.splitlines())
    return [line for line in wanted.splitlines() if line.startswith("CONFIG_") and line not in have]


def _nothing(_: str) -> str:
    return ""
