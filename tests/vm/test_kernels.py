"""What a kernel is built from and booted with, without booting it."""

import subprocess
from pathlib import Path

import pytest

from kubewire.components.kernel import features as kernel_features
from kubewire.vm import build, cache
from kubewire.vm.errors import BuildFailed, NotBuilt, Untrusted
from kubewire.vm.kernels import KERNELS, named
from kubewire.vm.kernels.base import PACKAGES, Boot, packages
from kubewire.vm.kernels.qemu import cpio
from kubewire.vm.kernels.stock import LEGACY
from kubewire.vm.kernels.uml import CONFIG, EDITS, edit, kernel_line, refused


def test_the_lightest_kernel_comes_first() -> None:
    assert [kernel.name for kernel in KERNELS] == ["uml", "uml-stock", "qemu"]


def test_an_unknown_kernel_is_told_which_there_are() -> None:
    with pytest.raises(LookupError, match=r"no kernel 'umll'; there are uml, uml-stock, qemu"):
        named("umll")


def test_each_package_says_how_it_is_seen_and_which_kernels_need_it() -> None:
    lines = [line.split() for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    names = {kernel.name for kernel in KERNELS}
    assert all(len(words) >= 3 and set(words[2:]) <= names for words in lines)
    assert packages("uml-stock").splitlines() == [
        "kmod /sbin/modprobe",
        "ipvsadm /usr/sbin/ipvsadm",
        "user-mode-linux linux.uml",
    ]


def test_uml_gets_no_device_and_a_read_only_root() -> None:
    words = kernel_line(Boot(memory=512))
    assert {"mem=512M", "root=hostfs", "ro", "con=null", "ssl=null"} <= set(words)
    assert not [word for word in words if word.startswith(("eth", "vec", "ubd", "time-travel"))]


def test_virtual_time_is_a_word_of_the_kernels() -> None:
    assert "time-travel=inf-cpu" in kernel_line(Boot(virtual_time=True))


def test_an_option_that_the_source_does_not_take_is_named() -> None:
    assert refused("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n", "CONFIG_A=y\n") == ["CONFIG_C=y"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Of the kernel's source, as little as is edited: the places that EDITS look for, each on a line."""
    for one in EDITS:
        path = tmp_path / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(f"{one.before.rstrip()}\n")
    return tmp_path


def test_the_source_is_edited_once(tree: Path) -> None:
    edit(tree)
    registers = tree / "arch/x86/um/os-Linux/registers.c"
    text = registers.read_text()
    assert '#include "host_xstate.h"\n' in text
    assert text.count("whole_xstate(&iov)") == 1
    assert (registers.parent / "host_xstate.h").exists()
    edit(tree)  # a build that was interrupted goes on
    assert registers.read_text() == text


@pytest.mark.parametrize("times", [0, 2])
def test_a_source_that_is_another_one_is_not_edited(tree: Path, times: int) -> None:
    path = tree / EDITS[-1].file
    path.write_text(path.read_text().replace(EDITS[-1].before, EDITS[-1].before * times))
    with pytest.raises(BuildFailed, match=r"registers.c of this source is not Linux 6.1's"):
        edit(tree)


def test_no_option_is_given_twice() -> None:
    names = [line.split("=")[0] for line in CONFIG.read_text().splitlines() if line.startswith("CONFIG_")]
    assert sorted(names) == sorted(set(names))


def test_the_stock_kernels_guest_uses_the_iptables_it_has_a_kernel_for() -> None:
    assert LEGACY["/etc/alternatives/iptables-restore"] == "/usr/sbin/iptables-legacy-restore"


def test_an_initrd_is_read_by_another_cpio(tmp_path: Path) -> None:
    archive = cpio([("bin", 0o040755, b""), ("bin/x", 0o100755, b"#!/bin/sh\n"), ("odd", 0o100644, b"12345")])
    subprocess.run(["busybox", "cpio", "-i", "-d"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/x").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/x").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "odd").read_bytes() == b"12345"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cache.Built:
    """A kernel in a cache of the test's own."""
    monkeypatch.setenv("KUBEWIRE_VM_CACHE", str(tmp_path))
    folder = build.folder_of(named("uml"))
    folder.mkdir()
    (folder / "linux").write_bytes(b"a kernel")
    path = folder / "linux"
    made = cache.Built(
        "6.1", str(path), 8, cache.sha256(path), named("uml").recipe(), build.probes(), 1.0, {"veth": True}
    )
    made.save(folder)
    return made


def test_what_was_kept_is_found_again(stored: cache.Built) -> None:
    assert build.find(named("uml")) == stored


def test_a_kernel_of_another_configuration_is_none(stored: cache.Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubewire.vm.kernels.uml.UML.recipe", lambda self: "other")
    assert build.find(named("uml")) is None


def test_a_kernel_that_was_not_asked_for_a_new_feature_is_none(
    stored: cache.Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernel_features.FEATURES, "new", kernel_features.Feature("true"))
    assert build.find(named("uml")) is None


def test_a_kernel_that_was_built_right_is_only_to_be_asked_again(
    stored: cache.Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.to_be_asked(named("uml"))  # nobody knows whether it runs on this machine
    cache.Verdict(stored.path, stored.sha256, stored.recipe).save(build.folder_of(named("uml")))
    assert not build.to_be_asked(named("uml"))
    monkeypatch.setitem(kernel_features.FEATURES, "new", kernel_features.Feature("true"))
    assert build.to_be_asked(named("uml"))
    monkeypatch.setattr("kubewire.vm.kernels.uml.UML.recipe", lambda self: "other")
    assert not build.to_be_asked(named("uml"))


def test_a_kernel_whose_file_is_gone_is_none(stored: cache.Built) -> None:
    Path(stored.path).unlink()
    assert build.find(named("uml")) is None


def test_a_kernel_file_that_cannot_be_read_is_none(stored: cache.Built) -> None:
    (build.folder_of(named("uml")) / "kernel.json").write_text("{")
    assert build.find(named("uml")) is None


@pytest.mark.parametrize("folder", ["uml", "."], ids=["its-folder", "the-cache"])
def test_a_kernel_that_others_could_have_put_there_is_not_booted(
    stored: cache.Built, tmp_path: Path, folder: str
) -> None:
    (tmp_path / folder).chmod(0o777)
    with pytest.raises(Untrusted, match=r"others may write to .* \(mode 0777\)"):
        build.find(named("uml"))
    with pytest.raises(NotBuilt, match="others may write to"):
        build.need(named("uml"))


def test_no_kernel_is_built_where_others_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEWIRE_VM_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    made: list[Path] = []
    monkeypatch.setattr("kubewire.vm.kernels.uml.UML.make", lambda self, folder, progress: made.append(folder))
    with pytest.raises(Untrusted, match="others may write to"):
        build.build(named("uml"), lambda _: None)
    assert made == []


def test_a_source_archive_that_no_package_brought_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "linux.tar.xz"
    source.write_bytes(b"anything")
    monkeypatch.setattr("kubewire.vm.kernels.uml.SOURCE", source)
    monkeypatch.setattr("kubewire.vm.kernels.uml.PACKAGE", "kubewire-no-such-package")
    with pytest.raises(BuildFailed, match="is not checked by any installed package"):
        named("uml").make(tmp_path / "uml", lambda _: None)
    assert not (tmp_path / "uml/build").exists()


@pytest.fixture
def roots(stored: cache.Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cache.Built:
    """The same kernel in root's cache, seen by a user whose own is empty."""
    monkeypatch.delenv("KUBEWIRE_VM_CACHE")
    monkeypatch.setattr("kubewire.vm.cache.SYSTEM", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return stored


def test_what_root_has_built_a_user_finds(roots: cache.Built) -> None:
    assert build.find(named("uml")) == roots


def test_what_root_has_built_a_user_does_not_build_again(roots: cache.Built) -> None:
    said: list[str] = []
    assert build.build(named("uml"), said.append) == roots
    assert said == [f"root has built it: {roots.path}"]
    assert not cache.directory().exists()


def test_a_users_own_kernel_comes_before_roots(roots: cache.Built, tmp_path: Path) -> None:
    own = cache.Built(**{**vars(roots), "release": "6.1-own"})
    folder = build.folder_of(named("uml"))
    folder.mkdir(parents=True)
    own.save(folder)
    assert build.find(named("uml")) == own


def test_in_a_chosen_cache_only_that_one_counts(
    roots: cache.Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEWIRE_VM_CACHE", str(tmp_path / "chosen"))
    assert build.find(named("uml")) is None
