"""Generated files: written in a checkout, and only where they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.components.base import sources


def test_only_what_differs_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    (tmp_path / "same").write_text("a")
    (tmp_path / "same").chmod(0o444)
    before = (tmp_path / "same").stat().st_mtime_ns
    (tmp_path / "other").write_text("b")
    assert sources.write_generated({tmp_path / "same": "a", tmp_path / "other": "c", tmp_path / "new": "d"}) == 0
    assert capsys.readouterr().out == "wrote other\nwrote new\n"
    assert [(tmp_path / name).read_text() for name in ("same", "other", "new")] == ["a", "c", "d"]
    assert (tmp_path / "same").stat().st_mtime_ns == before


def test_nothing_is_written_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IS_CHECKOUT", False)
    assert sources.write_generated({tmp_path / "new": "d"}) == 2
    assert not (tmp_path / "new").exists()
