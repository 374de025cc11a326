"""`kubewire test`: runs the static checks, provides a kernel for virtual machines, and runs the
whole test suite in parallel.

The tests in virtual machines use the kernels that are built. On a machine without any, Debian's
stock kernel is installed: this takes tens of megabytes and seconds, while building a kernel takes
two cores 5 to 15 minutes. The end of the output says on which kernels the tests ran, and which
tests were skipped for lack of a kernel (tests/conftest.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kubewire.components.base import sources
from kubewire.lab.commands import virtual
from kubewire.lab.errors import UsageError

#: (name, module, arguments) of the static checks, in the order in which they run.
CHECKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ruff: style and likely mistakes", "ruff", ("check", "-q", ".")),
    ("ruff: format", "ruff", ("format", "-q", "--check", ".")),
    ("mypy --strict", "mypy", ()),
    ("import contracts", "importlinter.cli", ()),
)


def run(arguments: Sequence[str]) -> int:
    """Run the checks and tests. With arguments, run only pytest, with these arguments. Returns the
    exit code of the first check that fails, or that of pytest."""
    root = sources.FOLDER
    if not sources.IS_CHECKOUT:
        raise UsageError("an installed kubewire has no tests; run ./kubewire test in a checkout")
    if not arguments:
        for name, module, options in CHECKS:
            if code := _check(root, name, module, options):
                return code
        virtual.kernel_for_tests()
    # Tests of labs wait more than they compute, so two workers are needed to keep a core busy.
    workers = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"] if not arguments else []
    command = [sys.executable, "-m", "pytest", *workers, *arguments]
    return _until_it_ends(command, root)


def _until_it_ends(command: Sequence[str], root: Path) -> int:
    """Run a command and wait for it, also after ctrl-C: pytest gets it too, and needs time to end
    the labs of its tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=root) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait() or 130


def _check(root: Path, name: str, module: str, options: Sequence[str]) -> int:
    began = time.monotonic()
    code = _lint_imports(root) if module == "importlinter.cli" else _module(root, module, options)
    print(
        f"  {'✗' if code else '✓'} {name}  {time.monotonic() - began:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return code


def _module(root: Path, module: str, options: Sequence[str]) -> int:
    return _run(root, ["-m", module, *options])


def _lint_imports(root: Path) -> int:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return _run(root, ["-c", code, "--no-cache"])


def _run(root: Path, arguments: Sequence[str]) -> int:
    environment = os.environ | {"PYTHONPATH": str(sources.IMPORTED_FROM)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, stdout=sys.stderr, env=environment).returncode
