"""`kubewire test`: the static checks, a kernel for virtual machines, then the whole test suite in parallel.

The tests of virtual machines use the kernels that are built. On a machine without any it is Debian's stock one: tens of
megabytes and seconds, where building one takes 5 to 15 minutes of two cores. Where tests ran, and what did not for want
of a kernel, is the last thing that is said (tests/conftest.py).
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

#: name, module, arguments: run in this order, each must succeed.
CHECKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ruff: style and likely mistakes", "ruff", ("check", "-q", ".")),
    ("ruff: format", "ruff", ("format", "-q", "--check", ".")),
    ("mypy --strict", "mypy", ()),
    ("import contracts", "importlinter.cli", ()),
)


def run(arguments: Sequence[str]) -> int:
    """Exit code of the first check that fails, else pytest's. arguments go to pytest and skip the static checks."""
    root = sources.FOLDER
    if not sources.IS_CHECKOUT:
        raise UsageError("the tests are part of a checkout; run ./kubewire test there")
    if not arguments:
        for name, module, options in CHECKS:
            if code := _check(root, name, module, options):
                return code
        virtual.kernel_for_tests()
    # Labs wait more than they compute: two workers keep a core busy.
    workers = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"] if not arguments else []
    command = [sys.executable, "-m", "pytest", *workers, *arguments]
    return _until_it_ends(command, root)


def _until_it_ends(command: Sequence[str], root: Path) -> int:
    """Ctrl-C reaches pytest too, which then ends the labs of its tests; that must not be cut short."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=root) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait() or 130


def _check(root: Path, name: str, module: str, options: Sequence[str]) -> int:
    began = time.monotonic()
    code = _lint_imports(root) if module == "importlinter.cli" else _module(root, module, options)
    print(f"  {'✗' if code else '✓'} {name}  {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return code


def _module(root: Path, module: str, options: Sequence[str]) -> int:
    return _run(root, ["-m", module, *options])


def _lint_imports(root: Path) -> int:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return _run(root, ["-c", code, "--no-cache"])


def _run(root: Path, arguments: Sequence[str]) -> int:
    environment = os.environ | {"PYTHONPATH": str(sources.IMPORTED_FROM)}
    return subprocess.run([sys.executable, *arguments], cwd=root, stdout=sys.stderr, env=environment).returncode
