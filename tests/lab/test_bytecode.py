"""Labs find the checkout's sources compiled."""

from __future__ import annotations

import os
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from kubewire.components.base import sources
from kubewire.lab import bytecode


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a checkout that nobody has imported."""
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    module = tmp_path / "components/part/agent.py"
    module.parent.mkdir(parents=True)
    module.write_text("A = 1\n")
    return module


def compiled(module: Path) -> Path:
    return Path(cache_from_source(str(module)))


def test_what_no_process_imported_is_compiled_and_again_after_a_change(module: Path) -> None:
    bytecode.ensure()
    before = compiled(module).read_bytes()
    module.write_text("A = 1\nB = 2\n")
    os.utime(module, (1, 1))
    bytecode.ensure()
    assert compiled(module).read_bytes() != before


def test_a_file_that_does_not_compile_is_left_to_the_program_that_imports_it(module: Path) -> None:
    module.with_name("broken.py").write_text("A = \n")
    bytecode.ensure()
    assert compiled(module).exists()


def test_nothing_is_compiled_for_a_user_who_wants_none(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    bytecode.ensure()
    assert not compiled(module).exists()


def test_nothing_is_compiled_in_an_installation(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IS_CHECKOUT", False)
    bytecode.ensure()
    assert not compiled(module).exists()
