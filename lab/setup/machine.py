"""Sets a bare Debian machine up for kubewire: Debian packages, then a virtual environment in the
checkout.

Every file is checked before it is used: Debian packages by apt's signatures, Python packages by the
checksums in requirements.lock. The launcher runs this with the system's python3 before anything is
installed, so it uses only the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kubewire.components.base import apt
from kubewire.lab.setup import lock

READY = ".kubewire-ready"
Progress = Callable[[str], None]


class SetUpFailed(Exception):
    """A step failed; the text names the command, shows the end of its output and says what to
    do."""


def packages(listing: str) -> Iterator[tuple[str, str]]:
    """(package, witness) pairs from debian-packages.txt. The witness is a command or an absolute
    path that exists if the package is installed."""
    for line in listing.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words[0], words[1]


def missing(listing: str) -> list[str]:
    """The packages whose witness does not exist."""
    return [
        package
        for package, witness in packages(listing)
        if not (Path(witness).exists() if witness.startswith("/") else shutil.which(witness))
    ]


class Steps:
    """Prints a line per step; on a terminal the line shows progress while the step runs."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def run(self, name: str, work: Callable[[Progress], None]) -> None:
        began = time.monotonic()
        self._show(f"  … {name}")
        try:
            work(lambda what: self._show(f"  … {name}: {what}"[:100]))
        except SetUpFailed:
            self._show(f"  ✗ {name}", final=True)
            raise
        self._show(f"  ✓ {name}  {time.monotonic() - began:.1f} s", final=True)

    def _show(self, text: str, *, final: bool = False) -> None:
        if self._live:
            sys.stderr.write(f"\r\033[K{text}" + ("\n" if final else ""))
            sys.stderr.flush()
        elif final:
            print(text, file=sys.stderr, flush=True)


def _run(
    command: Sequence[str],
    progress: Progress,
    interesting: Callable[[str], str],
    advice: str | Callable[[str], str],
) -> None:
    """Run a command. interesting: turns a line of its output into progress, or "". advice: what the
    user can do if it fails, or a function that tells this from the end of its output. Raises
    SetUpFailed."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    last: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = [*last[-14:], line.rstrip()]
                if what := interesting(line):
                    progress(what)
        except KeyboardInterrupt:
            # apt and pip clean up when they are interrupted; leaving this block waits for that.
            process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        output = "\n".join(f"  | {line}" for line in last)
        todo = advice if isinstance(advice, str) else advice(output)
        raise SetUpFailed(
            f"{' '.join(command[:4])} ... failed with exit code {process.returncode}\n{output}\n{todo}",
        )


def install_packages(wanted: list[str], progress: Progress) -> None:
    """Run apt-get update and install, with signed packages only, and without recommended packages,
    because those would start services."""
    advice = "check that this machine is online, and its package sources in /etc/apt/sources.list.d"

    def interesting(line: str) -> str:
        words = line.split()
        return " ".join(words[:2]) if words and words[0] in ("Get:", "Unpacking", "Setting") else ""

    _run([*apt.GET, "update", "-q"], progress, interesting, advice)
    _run(
        [*apt.GET, "install", "-y", "-q", "--no-install-recommends", *wanted],
        progress,
        interesting,
        advice,
    )


def make_environment(checkout: Path, progress: Progress) -> None:
    """Make the virtual environment from requirements.lock; an incomplete one is removed first.
    Raises SetUpFailed."""
    try:
        lock.check(checkout)
    except lock.LockFailed as error:
        raise SetUpFailed(str(error)) from error
    venv = checkout / ".venv"
    if not (venv / "bin/python").exists() or not (venv / "bin/pip").exists():
        shutil.rmtree(venv, ignore_errors=True)
        venv.unlink(missing_ok=True)
        _run([sys.executable, "-m", "venv", str(venv)], progress, lambda _: "creating it", "")
    install_locked(venv / "bin/python", checkout / lock.LOCK, progress)
    (venv / READY).touch()


def install_locked(python: Path, locked: Path, progress: Progress) -> None:
    """Install the packages of a lock file. A file with another checksum is an error, and so is a
    package that the lock does not name.

    Installs only wheels, so no code of a package runs now. Raises SetUpFailed.
    """
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
    ]
    _run(
        [*pip, "--require-hashes", "--only-binary=:all:", "-r", str(locked)],
        progress,
        _package_of_line,
        _what_pip_lacks,
    )


def _package_of_line(line: str) -> str:
    return " ".join(line.split()[1:2]) if line.startswith(("Collecting", "Installing")) else ""


def _what_pip_lacks(output: str) -> str:
    if "DO NOT MATCH THE HASHES" in output:
        return (
            "a file of the package index is not the one that requirements.lock names, and was not "
            "installed; ask the operator of the index (`pip config list` names it) why it differs, "
            "and do not renew the lock before you know"
        )
    return "check that the Python package index is reachable; `pip config list` names it"


@contextlib.contextmanager
def alone(checkout: Path) -> Iterator[None]:
    """Hold the lock on a checkout (flock(2) on its folder), so that only one command sets it up. A
    second one prints that it waits."""
    descriptor = os.open(checkout, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "kubewire: another command is setting this machine up; waiting for it",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main(checkout: Path, _: Sequence[str] = ()) -> int:
    """Set the checkout up; prints each step on stderr. Returns the exit code (130 if
    interrupted)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with alone(checkout):
            return set_up(checkout)
    except KeyboardInterrupt:
        print("\nkubewire: interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def set_up(checkout: Path) -> int:
    """Install the missing packages. Returns the exit code."""
    wanted = missing((checkout / "debian-packages.txt").read_text())
    steps = Steps()
    try:
        if wanted and os.geteuid() != 0:
            raise SetUpFailed(
                f"these Debian packages are missing: {' '.join(wanted)}\n"
                "run this once as root (sudo ./kubewire doctor), or install them yourself"
            )
        if wanted and shutil.which("apt-get") is None:
            raise SetUpFailed(
                "this machine has no apt-get (it is not a Debian); install what these Debian "
                f"packages contain: {' '.join(wanted)} (see debian-packages.txt)"
            )
        print("kubewire: setting this machine up (once)", file=sys.stderr, flush=True)
        if wanted:
            steps.run(
                f"Debian packages: {' '.join(wanted)}",
                lambda progress: install_packages(wanted, progress),
            )
        if not _up_to_date(checkout) or not _works(checkout):
            steps.run(
                "Python packages in .venv",
                lambda progress: make_environment(checkout, progress),
            )
    except SetUpFailed as error:
        print(f"kubewire: {error}", file=sys.stderr)
        return 1
    return 0


def _up_to_date(checkout: Path) -> bool:
    ready = checkout / ".venv" / READY
    newest = max((checkout / name).stat().st_mtime for name in (lock.REQUIREMENTS, lock.LOCK))
    return ready.exists() and ready.stat().st_mtime > newest


def _works(checkout: Path) -> bool:
    """Whether the virtual environment can be used. In a checkout copied from another machine, its
    python may be a dangling link."""
    python = checkout / ".venv/bin/python"
    if not python.exists():
        return False
    return subprocess.run([python, "-c", "import aiohttp"], capture_output=True).returncode == 0
