"""requirements.lock is that of requirements.txt, and pip takes nothing that it does not list."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pip
import pytest

from kubewire.lab.setup import lock, machine

ROOT = Path(__file__).parent.parent.parent
DIGEST = "0123456789abcdef" * 4


def test_the_lock_is_that_of_the_requirements() -> None:
    lock.check(ROOT)


def test_each_locked_package_has_its_files_checksums() -> None:
    """locked() raises for an entry without one; packages of packages are there too."""
    found = lock.locked((ROOT / lock.LOCK).read_text())
    assert set(found) > set(lock.pins((ROOT / lock.REQUIREMENTS).read_text()))
    assert {"yarl", "multidict", "cffi", "setuptools"} <= set(found)


def test_no_file_of_requirements_names_an_index() -> None:
    for name in (lock.REQUIREMENTS, lock.LOCK):
        assert re.findall(r"://|^\s*-", (ROOT / name).read_text().replace("    --hash=", ""), re.MULTILINE) == []


@pytest.mark.parametrize(
    ("requirements", "locked", "said"),
    [
        ("A.b==1\n", f"a-b==1 --hash=sha256:{DIGEST}\n", []),
        (
            "# why\na==1  # here\n",
            f"a==1 \\\n    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{DIGEST}\n    # via b\n",
            [],
        ),
        ("a==1\n", f"a==1 ; sys_platform == 'linux' --hash=sha256:{DIGEST}\nb==2 --hash=sha256:{DIGEST}\n", []),
        ("a==2\n", f"a==1 --hash=sha256:{DIGEST}\n", ["requirements.txt has a==2, requirements.lock has a==1"]),
        ("a==1\nb==1\n", f"a==1 --hash=sha256:{DIGEST}\n", ["b==1 is not in requirements.lock"]),
    ],
    ids=["spelling", "comments", "marker-and-indirect", "other-version", "missing"],
)
def test_what_differs_is_told(requirements: str, locked: str, said: list[str]) -> None:
    assert lock.disagreements(requirements, locked) == said


@pytest.mark.parametrize(
    "line",
    [
        "a==1",
        "a --hash=sha256:" + DIGEST,
        "a>=1 --hash=sha256:" + DIGEST,
        "a==1 --hash=sha256:0123",
        "a==1 --hash=md5:0123456789abcdef0123456789abcdef",
        f"a==1 --hash=sha256:{DIGEST} --hash=md5:0123456789abcdef0123456789abcdef",
        f"a @ https://example.com/a.whl --hash=sha256:{DIGEST}",
        "--index-url https://example.com/simple",
        "-r other.txt",
    ],
)
def test_a_line_of_the_lock_that_is_not_a_pin_with_checksums_is_refused(line: str) -> None:
    with pytest.raises(lock.LockFailed, match=r"requirements\.lock: entry 2 is not NAME==VERSION with --hash"):
        lock.locked(f"# a comment\n{line}\n")


@pytest.mark.parametrize("line", ["a", "a>=1", "a==1 --hash=sha256:00", "-r other.txt", "a==1; python_version > '3'"])
def test_a_requirement_that_is_not_a_pin_is_refused(line: str) -> None:
    with pytest.raises(lock.LockFailed, match=r"requirements\.txt:1: .* is not NAME==VERSION"):
        lock.pins(line)


def test_a_set_up_with_a_lock_of_other_requirements_says_how_to_renew_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "debian-packages.txt").write_text("")
    (tmp_path / lock.REQUIREMENTS).write_text("a==2\n")
    (tmp_path / lock.LOCK).write_text(f"a==1 --hash=sha256:{DIGEST}\n")
    assert machine.set_up(tmp_path) == 1
    assert "has a==2, requirements.lock has a==1. Renew the lock: ./kubewire lock" in capfd.readouterr().err
    assert not (tmp_path / ".venv").exists()


def test_the_index_is_pips_own_and_of_several_settings_the_last_counts() -> None:
    said = (
        ":env:.index-url='https://c.example/simple'\nglobal.cert='/certs'\nglobal.extra-index-url='https://x.example'\n"
        "global.index-url='https://a.example/simple'\ninstall.index-url='https://b.example/simple'\n"
    )
    assert lock.index_settings(said) == {"UV_DEFAULT_INDEX": "https://c.example/simple", "SSL_CERT_FILE": "/certs"}
    assert lock.index_settings("") == {}


class Index:
    """A folder of wheels as pip's only index, and a virtual environment to install into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "wheels"
        self.folder.mkdir()
        self.lock = folder / lock.LOCK
        self.python = folder / "venv/bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        (site,) = (folder / "venv/lib").glob("python3*/site-packages")
        # The test's own pip: a new one would take seconds to unpack.
        (site / "pip.pth").write_text(f"{Path(pip.__file__).parent.parent}\n")

    def wheel(self, name: str, *needs: str) -> str:
        """Make version 1 of a package; its SHA-256."""
        path = self.folder / f"{name}-1-py3-none-any.whl"
        needed = "".join(f"Requires-Dist: {one}\n" for one in needs)
        info = f"{name}-1.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", "")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{needed}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def install(self) -> None:
        machine.install_locked(self.python, self.lock, lambda _: None)

    def has(self, module: str) -> bool:
        return subprocess.run([self.python, "-c", f"import {module}"], capture_output=True).returncode == 0


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    made = Index(tmp_path)
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(made.folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return made


def test_what_has_the_locked_checksum_is_installed(index: Index) -> None:
    index.lock.write_text(f"probe==1 --hash=sha256:{index.wheel('probe')}\n")
    index.install()
    assert index.has("probe")


def test_a_package_file_with_another_checksum_is_not_installed_and_the_error_says_so(index: Index) -> None:
    index.wheel("probe")
    index.lock.write_text(f"probe==1 --hash=sha256:{DIGEST}\n")
    with pytest.raises(
        machine.SetUpFailed, match=r"(?s)DO NOT MATCH THE HASHES.*is not the one that requirements.lock"
    ):
        index.install()
    assert not index.has("probe")


def test_a_package_that_a_locked_one_needs_and_the_lock_has_not_is_not_installed(index: Index) -> None:
    index.wheel("other")
    index.lock.write_text(f"probe==1 --hash=sha256:{index.wheel('probe', 'other')}\n")
    with pytest.raises(machine.SetUpFailed, match="all requirements must have their versions pinned"):
        index.install()
    assert not index.has("probe")
    assert not index.has("other")


def test_a_lock_without_any_checksum_installs_nothing(index: Index) -> None:
    index.wheel("probe")
    index.lock.write_text("probe==1\n")
    with pytest.raises(machine.SetUpFailed, match="Hashes are required in --require-hashes mode"):
        index.install()
    assert not index.has("probe")


def test_a_package_without_a_wheel_is_not_built(index: Index) -> None:
    """A source archive's code would run, and its build requirements would be fetched without checksums."""
    source = index.folder / "probe-1.tar.gz"
    source.write_bytes(b"never opened")
    index.lock.write_text(f"probe==1 --hash=sha256:{hashlib.sha256(b'never opened').hexdigest()}\n")
    with pytest.raises(machine.SetUpFailed, match="No matching distribution found for probe==1"):
        index.install()
