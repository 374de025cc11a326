"""What is unpacked is what a signed archive lists: an archive of the test's own, with apt's state in the test's folder.

apt_archive/ was signed once with a key that exists no more (make.sh), so that the tests need apt and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kubewire.components.base import apt

ARCHIVE = Path(__file__).parent / "apt_archive"
DEB = "kubewire-probe_1.0_all.deb"
PACKAGE = "kubewire-probe"
CONTENT = Path("usr/share/kubewire-probe/content")

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this is not a Debian")


class Apt:
    """An apt that knows only the archive of the test."""

    def __init__(self, folder: Path) -> None:
        self.archive, self.state = folder / "archive", folder / "apt"
        self.config = folder / "apt.conf"
        shutil.copytree(ARCHIVE, self.archive)
        for path in (
            "state/lists/partial",
            "cache/archives/partial",
            "etc/preferences.d",
            "etc/apt.conf.d",
            "etc/trusted.gpg.d",
        ):
            (self.state / path).mkdir(parents=True)
        (self.state / "status").touch()
        self.configure()
        self.source("")

    def configure(self, *lines: str) -> None:
        settings = {
            "Dir::State": f"{self.state}/state",
            "Dir::State::status": f"{self.state}/status",
            "Dir::Cache": f"{self.state}/cache",
            "Dir::Etc": f"{self.state}/etc",
            "APT::Sandbox::User": "root",
        }
        written = [f'{key} "{value}";' for key, value in settings.items()]
        self.config.write_text("\n".join(["#clear Acquire::Languages;", *written, *lines]) + "\n")

    def source(self, options: str) -> None:
        words = f"[signed-by={self.archive}/key.asc {options}]"
        (self.state / "etc/sources.list").write_text(f"deb {words} file:{self.archive} ./\n")

    def update(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["apt-get", "update"], capture_output=True, text=True)


@pytest.fixture
def own_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    found = Apt(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(found.config))
    monkeypatch.setenv("LC_ALL", "C")
    return found


def test_a_package_of_a_signed_archive_is_unpacked_and_nothing_else_is_left(own_apt: Apt, tmp_path: Path) -> None:
    said: list[str] = []
    apt.unpack([PACKAGE], tmp_path / "root", said.append)
    assert (tmp_path / "root" / CONTENT).read_text() == "genuine\n"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["usr"]
    assert said == [f"fetching {PACKAGE}", f"unpacking {DEB}"]


def other_deb(archive: Path) -> Path:
    """A package with the same name and version, and another content."""
    tree = archive.with_name("other")
    subprocess.run(["dpkg-deb", "-R", archive, tree], check=True)
    (tree / CONTENT).write_text("forged!\n")
    forged = archive.with_name("other.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, forged], check=True, capture_output=True)
    shutil.rmtree(tree)
    return forged


def tampered_package(own: Apt) -> None:
    own.update()
    other_deb(own.archive / DEB).replace(own.archive / DEB)


def flipped_bit(own: Apt) -> None:
    own.update()
    content = bytearray((own.archive / DEB).read_bytes())
    content[-1] ^= 1
    (own.archive / DEB).write_bytes(content)


def tampered_list(own: Apt) -> None:
    """The list has the forged package's checksum; the Release file has not the list's."""
    forged = other_deb(own.archive / DEB)
    digest = subprocess.run(["sha256sum", forged], capture_output=True, text=True, check=True).stdout.split()[0]
    forged.replace(own.archive / DEB)
    lines = (own.archive / "Packages").read_text().splitlines()
    dropped = ("SHA1:", "MD5sum:")
    changed = [f"SHA256: {digest}" if line.startswith("SHA256:") else line for line in lines]
    changed = [f"Size: {(own.archive / DEB).stat().st_size}" if one.startswith("Size:") else one for one in changed]
    (own.archive / "Packages").write_text("\n".join(one for one in changed if not one.startswith(dropped)) + "\n\n")


def unsigned(own: Apt) -> None:
    text = (own.archive / "InRelease").read_text()
    release = text.split("\n\n", 1)[1].split("-----BEGIN PGP SIGNATURE", 1)[0]
    (own.archive / "Release").write_text(release)
    (own.archive / "InRelease").unlink()


def unsigned_where_the_machine_allows_it(own: Apt) -> None:
    unsigned(own)
    own.configure('Acquire::AllowInsecureRepositories "true";', 'APT::Get::AllowUnauthenticated "true";')
    assert own.update().returncode == 0


def changed_after_signing(own: Apt) -> None:
    path = own.archive / "InRelease"
    path.write_text(path.read_text().replace("Suite: probe", "Suite: stable"))


def key_of_somebody_else(own: Apt) -> None:
    debian = next(Path("/usr/share/keyrings").glob("debian-archive-bookworm-stable.*"))
    (own.archive / "key.asc").unlink()
    (own.state / "etc/sources.list").write_text(f"deb [signed-by={debian}] file:{own.archive} ./\n")


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (tampered_package, "Hash Sum mismatch"),
        (flipped_bit, "Hash Sum mismatch"),
        (tampered_list, "(?s)Unable to locate.*(Hash Sum mismatch|unexpected size)"),
        (unsigned, "(?s)Unable to locate.*repository .* is not signed"),
        (unsigned_where_the_machine_allows_it, "could not be authenticated"),
        (changed_after_signing, "(?s)Unable to locate.*(BADSIG|not signed|could not be verified)"),
        (key_of_somebody_else, "(?s)Unable to locate.*(NO_PUBKEY|not signed|could not be verified)"),
    ],
    ids=lambda value: value.__name__.replace("_", "-") if callable(value) else "",
)
def test_what_no_signature_covers_is_refused(
    own_apt: Apt, tmp_path: Path, break_it: Callable[[Apt], None], why: str
) -> None:
    break_it(own_apt)
    with pytest.raises(apt.Refused, match=why):
        apt.unpack([PACKAGE], tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_file_that_was_exchanged_after_the_download_is_refused(
    own_apt: Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = apt._download

    def exchanged(packages: list[str], folder: Path) -> None:
        fetch(packages, folder)
        other_deb(own_apt.archive / DEB).replace(folder / DEB)

    monkeypatch.setattr(apt, "_download", exchanged)
    with pytest.raises(
        apt.Refused,
        match=f"{DEB} is not the file of Debian's archive: .* for {PACKAGE} 1.0 all",
    ):
        apt.unpack([PACKAGE], tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_package_that_no_list_has_is_refused(own_apt: Apt, tmp_path: Path) -> None:
    with pytest.raises(apt.Refused, match="Unable to locate package no-such-package"):
        apt.unpack(["no-such-package"], tmp_path / "root")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a package that dpkg has installed, in a database of the test's own; the file's absolute path."""
    admin = tmp_path / "dpkg"
    (admin / "info").mkdir(parents=True)
    path = tmp_path / "source.tar.xz"
    path.write_text("genuine\n")
    digest = subprocess.run(["md5sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    (admin / "info/probe.md5sums").write_text(f"{digest}  {str(path)[1:]}\n")
    (admin / "info/probe.list").write_text(f"{path}\n")
    fields = ["Package: probe", "Status: install ok installed", "Version: 1", "Architecture: all"]
    (admin / "status").write_text("\n".join([*fields, "Maintainer: nobody", "Description: probe", "", ""]))
    monkeypatch.setenv("DPKG_ADMINDIR", str(admin))
    return path


def test_a_file_as_its_package_brought_it_is_taken(installed: Path) -> None:
    apt.verify_installed("probe", installed)


def test_a_file_that_was_changed_since_its_package_was_installed_is_refused(installed: Path) -> None:
    installed.write_text("forged!\n")
    with pytest.raises(apt.Refused, match=f"{installed} is not as the package probe brought it"):
        apt.verify_installed("probe", installed)


def test_a_file_that_no_installed_package_has_is_refused(installed: Path) -> None:
    with pytest.raises(apt.Refused, match="is not checked by any installed package"):
        apt.verify_installed("no-such-package", installed)


@pytest.mark.parametrize(
    ("mode", "above", "trusted"),
    [
        (0o755, 0o755, True),
        (0o700, 0o755, True),
        (0o775, 0o755, False),
        (0o757, 0o755, False),
        (0o1777, 0o755, False),
        (0o755, 0o777, False),
        (0o755, 0o775, False),
        (0o755, 0o1777, True),
    ],
    ids=["own", "private", "group", "others", "itself-sticky", "above-others", "above-group", "above-sticky"],
)
def test_a_folder_in_which_others_may_write_is_not_trusted(
    tmp_path: Path, mode: int, above: int, trusted: bool
) -> None:
    folder = tmp_path / "above/cache"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    folder.parent.chmod(above)
    if trusted:
        apt.require_own(folder)
    else:
        with pytest.raises(apt.Untrusted, match=r"others may write to .* chmod go-w"):
            apt.require_own(folder)


@pytest.mark.parametrize("owned", ["cache", "above"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_trusted(tmp_path: Path, owned: str) -> None:
    folder = tmp_path / "above/cache"
    folder.mkdir(parents=True)
    path = folder if owned == "cache" else folder.parent
    os.chown(path, 12345, 12345)
    with pytest.raises(apt.Untrusted, match=f"{path} belongs to the user with the id 12345"):
        apt.require_own(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_user_on_the_way_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "real/cache").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    apt.require_own(tmp_path / "link/cache")
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    with pytest.raises(apt.Untrusted, match="link belongs to the user"):
        apt.require_own(tmp_path / "link/cache")


def test_a_new_folder_is_ones_own_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        apt.make_own(tmp_path / "a/b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
