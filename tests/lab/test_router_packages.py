"""BIRD, FRR and GoBGP are run only from a folder that nobody else can change."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.components.base import apt
from kubewire.lab.bringup import router_packages


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where root and everybody else looks: empty."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(router_packages, "SYSTEM", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(router_packages, "directory", lambda: folder)
    return folder


def unpacked(folder: Path) -> Path:
    folder.mkdir()
    (folder / "complete").touch()
    return folder


def test_what_was_unpacked_is_found_again(cache: Path) -> None:
    assert router_packages.find() is None
    unpacked(cache)
    assert router_packages.find() == router_packages.ensure() == cache


def test_what_somebody_else_could_have_changed_is_not_found_and_the_error_names_it(cache: Path) -> None:
    unpacked(cache).chmod(0o777)
    assert router_packages.find() is None
    with pytest.raises(router_packages.NoRouters, match=f"others may write to {cache} .*chmod go-w"):
        router_packages.ensure()


def test_nothing_is_unpacked_where_somebody_else_may_write(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(router_packages.NoRouters, match=f"others may write to {cache}"):
        router_packages.ensure()
    assert list(cache.iterdir()) == []


def test_packages_that_apt_does_not_vouch_for_leave_nothing_complete(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(packages: object, root: object) -> None:
        raise apt.Refused("bird2 could not be authenticated")

    monkeypatch.setattr(apt, "unpack", refuse)
    with pytest.raises(router_packages.NoRouters, match="bird2 could not be authenticated"):
        router_packages.ensure()
    assert router_packages.find() is None
