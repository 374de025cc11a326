"""Unpacks Debian packages without installing them, after checking the signature of the machine's
package sources.

SecureApt (apt-secure(8)) is a chain: an archive's Release file is signed with a key that this
machine trusts, it holds the checksums of the package lists, and those hold the checksum of every
package. apt-get download checks the chain. The package is checked against the lists again before it
is unpacked, because it may have been replaced since. Standard library only, because it is used
before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

#: apt-get that accepts only signed packages, whatever this machine's configuration allows.
GET = (
    "apt-get",
    *("-o", "APT::Get::AllowUnauthenticated=false"),
    *("-o", "Acquire::AllowInsecureRepositories=false"),
    *("-o", "Acquire::AllowWeakRepositories=false"),
    *("-o", "Acquire::AllowDowngradeToInsecureRepositories=false"),
)
_SECONDS = 180


class Refused(Exception):
    """Packages are not available, or differ from Debian's archive; the text says which and why."""


class Untrusted(Exception):
    """Another user can change the files of a folder; the text names the folder and the remedy."""


def unpack(
    packages: Sequence[str], root: Path, progress: Callable[[str], None] = lambda _: None
) -> None:
    """Downloads packages with apt and unpacks them below root, which is created. Raises Refused
    before anything is unpacked.

    The download goes into a folder that only this user may enter.
    """
    make_own(root)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
        progress(f"fetching {', '.join(packages)}")
        _download(packages, Path(folder))
        archives = sorted(Path(folder).glob("*.deb"))
        if len(archives) != len(packages):
            names = ", ".join(archive.name for archive in archives)
            raise Refused(
                f"apt-get download of {', '.join(packages)} left other packages: {names or 'none'}",
            )
        for archive in archives:
            verify(archive)
        for archive in archives:
            progress(f"unpacking {archive.name}")
            _run(["dpkg-deb", "-x", str(archive), str(root)])


def _download(packages: Sequence[str], folder: Path) -> None:
    # As root apt would download as the user _apt, which may not write into a folder of root's.
    command = [*GET, "-o", "APT::Sandbox::User=root", "download", "-q", *packages]
    with contextlib.suppress(Refused):
        _run(command, folder)
        return
    # The package lists may be old or missing. An ordinary user cannot update them.
    said = ""
    try:
        said = subprocess.run(
            [*GET, "update", "-q"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            timeout=_SECONDS,
            check=False,
            env=_environment(),
        ).stderr
        _run(command, folder)
    except (OSError, subprocess.SubprocessError, Refused) as error:
        raise Refused(
            f"{error}\napt-get update said: {said.strip()[-700:] or 'nothing'}",
        ) from error


def verify(archive: Path) -> None:
    """Raises Refused unless the package lists have this package and version with the file's
    SHA-256."""
    name, version, architecture = _run(
        [
            "dpkg-deb",
            "--show",
            "--showformat=${Package}\\n${Version}\\n${Architecture}\\n",
            str(archive),
        ],
    ).splitlines()
    listed = set(_listed(name, version, architecture))
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found not in listed:
        wanted = " or ".join(sorted(listed)) or "no checksum at all"
        raise Refused(
            f"{archive.name} is not the file of Debian's archive: its SHA-256 is {found}, and the signed package list"
            f" has {wanted} for {name} {version} {architecture}",
        )


def _listed(name: str, version: str, architecture: str) -> Iterator[str]:
    """Checksums in the package lists. There may be several, if package sources have different files
    of one version."""
    for stanza in _run(["apt-cache", "show", f"{name}:{architecture}={version}"]).split("\n\n"):
        fields = dict(
            re.findall(r"^(Package|Version|Architecture|SHA256): (.*)$", stanza, re.MULTILINE),
        )
        if (fields.get("Package"), fields.get("Version"), fields.get("Architecture")) == (
            name,
            version,
            architecture,
        ):
            yield from filter(None, [fields.get("SHA256")])


def verify_installed(package: str, path: Path) -> None:
    """Raises Refused unless the file is as its package installed it, by dpkg's record (dpkg
    --verify)."""
    command = ["dpkg", "--verify", package]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env=_environment(),
    )
    if "not installed" in done.stderr or (done.returncode and not done.stdout):
        raise Refused(
            f"{path} is not checked by any installed package: {done.stderr.strip()[-300:]}",
        )
    if any(line.split()[-1:] == [str(path)] for line in done.stdout.splitlines()):
        raise Refused(
            f"{path} is not as the package {package} brought it; as root: apt-get install --reinstall {package}",
        )


def make_own(folder: Path) -> None:
    """Creates a folder, and its parents, that only this user can change, whatever the umask. Raises
    Untrusted."""
    for path in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(0o755)
    require_own(folder)


def require_own(folder: Path) -> None:
    """Raises Untrusted if a user other than root and this one can change what is in the folder.

    The rules are those of sshd(8) with StrictModes: the folder and its parents belong to root or to
    this user, and neither group nor others may write there. A parent may be sticky, such as /tmp.
    In a user namespace without an id for root, / has the id that stands for all unmapped users;
    such folders were checked outside.
    """
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}
    for start in dict.fromkeys([folder.absolute(), folder.resolve()]):
        for path in (start, *start.parents):
            found = path.lstat()
            if found.st_uid not in trusted:
                raise Untrusted(
                    f"{path} belongs to the user with the id {found.st_uid}, who could change what is run from"
                    f" {folder}; remove it, or let root or you own it",
                )
            sticky = path != start and found.st_mode & stat.S_ISVTX
            if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o022 and not sticky:
                raise Untrusted(
                    f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):04o}), and so change what is run"
                    f" from {folder}; remove what is in it, then: chmod go-w {path}",
                )


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    """Returns the output. Raises Refused with the end of stderr."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Refused(f"{command[0]}: {error}") from error
    if done.returncode:
        shown = " ".join(word for word in command if "::" not in word and word != "-o")
        raise Refused(f"{shown} failed: {done.stderr.strip()[-700:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C"}
