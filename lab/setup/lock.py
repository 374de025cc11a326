"""Makes and checks requirements.lock, which names every Python package that is installed, direct or
indirect, with the SHA-256 of each of its files.

Without it, a set-up installs whatever the package index serves that day. With it, pip installs
exactly these files and refuses any other (pip's --require-hashes). `./kubewire lock` makes the lock
from requirements.txt, which people edit. uv does the work, because one of its locks is valid for
all Python versions and processors, while a lock of pip-compile is valid only for those on which it
ran. uv runs in a temporary environment and is itself checked against the checksums below.

The lock contains only wheels. A source package would run its own code when it is built, and fetch
build requirements that have no checksum.

The launcher runs this with the system's python3 before anything is installed, so it uses only the
standard library.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = "requirements.txt"
LOCK = "requirements.lock"
COMMAND = "./kubewire lock"

#: uv, which resolves the requirements, as a line of a requirements file. The checksums are those of
#: its manylinux wheels for x86_64 and aarch64.
UV = """\
uv==0.13.9 --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \
    --hash=sha256:ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375 \
    --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe
"""
#: The Python versions and platforms on which kubewire can be set up (Debian 12 has glibc 2.36). The
#: lock is made only if every package has a wheel for each of them.
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36")
_HEADER = f"""\
# Made by {COMMAND} from {REQUIREMENTS}: not to be edited. Every file that pip may install, with its SHA-256.
"""
_ADVICE = "check that the Python package index is reachable; `pip config list` names it"
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)")


class LockFailed(Exception):
    """The lock cannot be made or read; the text says why and what to do."""


@dataclass(frozen=True)
class Locked:
    """A package in the lock. sha256: the checksum of each file of this version, in hexadecimal."""

    version: str
    sha256: tuple[str, ...]


def pins(requirements: str) -> dict[str, str]:
    """Normalized name (PEP 503) -> version, from requirements.txt. Raises LockFailed."""
    found: dict[str, str] = {}
    for number, line in _lines(requirements):
        match = _PIN.fullmatch(line)
        if match is None:
            raise LockFailed(f"{REQUIREMENTS}:{number}: {line!r} is not NAME==VERSION")
        found[_normalized(match[1])] = match[2]
    return found


def locked(lock: str) -> dict[str, Locked]:
    """Normalized name -> package, from a lock file. Raises LockFailed for an entry without a
    checksum or with any other option."""
    found: dict[str, Locked] = {}
    for number, line in _lines(lock.replace("\\\n", " ")):
        match = _PIN.match(line)
        hashes = tuple(_HASH.findall(line))
        if match is None or not hashes or len(hashes) != line.count("--"):
            raise LockFailed(
                f"{LOCK}: entry {number} is not NAME==VERSION with --hash=sha256:...: {line[:80]!r}",
            )
        found[_normalized(match[1])] = Locked(match[2], hashes)
    return found


def disagreements(requirements: str, lock: str) -> list[str]:
    """How the lock differs from the requirements, a sentence for each difference; empty if it
    matches them. Raises LockFailed."""
    have = locked(lock)
    found = []
    for name, version in pins(requirements).items():
        if name not in have:
            found.append(f"{name}=={version} is not in {LOCK}")
        elif have[name].version != version:
            found.append(
                f"{REQUIREMENTS} has {name}=={version}, {LOCK} has {name}=={have[name].version}",
            )
    return found


def check(checkout: Path) -> None:
    """Raise LockFailed unless the lock matches requirements.txt."""
    try:
        found = disagreements((checkout / REQUIREMENTS).read_text(), (checkout / LOCK).read_text())
    except OSError as error:
        raise LockFailed(f"{error.filename}: {error.strerror}; make it with: {COMMAND}") from error
    if found:
        raise LockFailed(f"{'; '.join(found)}. Renew the lock: {COMMAND}")


def renew(checkout: Path, upgrade: Sequence[str] = ()) -> int:
    """Make the lock again; returns the number of packages in it. Raises LockFailed.

    Indirect packages keep their versions as long as requirements.txt allows them. upgrade: names of
    packages whose newest version is taken; ["all"] means all packages.
    """
    requirements = (checkout / REQUIREMENTS).read_text()
    pins(requirements)
    with tempfile.TemporaryDirectory(prefix="kubewire-lock-") as folder:
        uv, settings = _resolver(Path(folder))
        made = Path(folder, LOCK)
        if (checkout / LOCK).exists():
            # uv keeps the versions that it finds in its output file.
            made.write_text((checkout / LOCK).read_text())
        Path(folder, REQUIREMENTS).write_text(requirements)
        _run([*uv, *_resolving(upgrade)], _ADVICE, settings, folder)
        for platform, python in itertools.product(PLATFORMS, PYTHONS):
            _run(
                [*uv, *_trying(platform, python)],
                f"a package has no wheel for {platform}, Python {python}; choose another version",
                settings,
                folder,
            )
        text = _HEADER + made.read_text()
    if found := disagreements(requirements, text):
        raise LockFailed(f"uv made a lock that does not match {REQUIREMENTS}: {'; '.join(found)}")
    # An unchanged lock keeps its time, because a newer one makes the launcher install again.
    if not (checkout / LOCK).exists() or (checkout / LOCK).read_text() != text:
        unfinished = checkout / f"{LOCK}.new"
        unfinished.write_text(text)
        unfinished.replace(checkout / LOCK)
    return len(locked(text))


def _resolver(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Install uv in a virtual environment in folder. Returns its command and the environment
    variables with which it runs."""
    python = folder / "venv/bin/python"
    _run(
        [sys.executable, "-m", "venv", str(folder / "venv")],
        "on Debian: apt install python3-venv",
    )
    (folder / "uv.txt").write_text(UV)
    pip = [str(python), "-m", "pip"]
    install = [
        "install",
        "-q",
        "--disable-pip-version-check",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    _run([*pip, *install, "-r", str(folder / "uv.txt")], _ADVICE)
    settings = index_settings(_run([*pip, "config", "list"], ""))
    command = [
        str(python.parent / "uv"),
        "pip",
        "compile",
        "--no-config",
        "--quiet",
        "--only-binary=:all:",
    ]
    return command, settings


def _resolving(upgrade: Sequence[str]) -> Iterator[str]:
    yield from ("--universal", f"--python-version={PYTHONS[0]}", "--generate-hashes", "--no-header")
    if "all" in upgrade:
        yield "--upgrade"
    else:
        yield from (f"--upgrade-package={name}" for name in upgrade)
    yield from (f"--output-file={LOCK}", REQUIREMENTS)


def _trying(platform: str, python: str) -> Iterator[str]:
    """Options for a run of uv that fails unless each locked version has a wheel there."""
    yield from (
        f"--python-platform={platform}",
        f"--python-version={python}",
        "--output-file=tried",
        LOCK,
    )


def index_settings(pip_config: str) -> dict[str, str]:
    """Environment variables for uv, made from `pip config list`, because uv does not read pip's
    configuration: the index, its certificates, and a proxy.

    pip's extra-index-url and find-links are left out. The lock names the files of one index, so
    that no package comes from an unexpected one (dependency confusion), and so that a folder with
    some files of a version does not hide its other files.
    """
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # a later one wins, as in pip
        for line in pip_config.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section):
                found[key.removeprefix(section)] = ast.literal_eval(value)
    settings = {"UV_DEFAULT_INDEX": "index-url", "SSL_CERT_FILE": "cert", "ALL_PROXY": "proxy"}
    return {variable: found[key] for variable, key in settings.items() if found.get(key)}


def _run(
    command: Sequence[str],
    advice: str,
    settings: Mapping[str, str] | None = None,
    folder: str = "/",
) -> str:
    """Run a command and return its output. Raises LockFailed with the end of its output and the
    advice."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | dict(settings or {}),
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        ending = (done.stdout + done.stderr).splitlines()[-20:]
        said = "\n".join(f"  | {line}" for line in ending)
        raise LockFailed(
            f"{' '.join(command[:4])} ... failed with exit code {done.returncode}\n{said}\n{advice}",
        )
    return done.stdout


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not empty or a comment."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = re.sub(r"(^|\s)#.*", "", line).strip()
        if content:
            yield number, content


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(checkout: Path, arguments: Sequence[str]) -> int:
    """Run `./kubewire lock [--upgrade all | --upgrade NAME...]`; returns the exit code (130 if
    interrupted)."""
    upgrade = list(arguments)
    if upgrade and upgrade.pop(0) != "--upgrade":
        print(f"usage: {COMMAND} [--upgrade all | --upgrade NAME...]", file=sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    try:
        count = renew(checkout, upgrade or (["all"] if arguments else []))
    except LockFailed as error:
        print(f"kubewire: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nkubewire: interrupted; {LOCK} is unchanged", file=sys.stderr)
        return 130
    print(
        f"{LOCK}: {count} packages; the next kubewire command installs what has changed",
        file=sys.stderr,
    )
    return 0
