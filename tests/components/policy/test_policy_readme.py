"""The examples of components/policy/README.md and compiler/README.md do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

POLICY = Path(__file__).parents[3] / "components/policy"
READMES = [POLICY / "README.md", POLICY / "compiler/README.md"]


@pytest.mark.parametrize("readme", READMES, ids=["policy", "compiler"])
def test_the_examples_hold(readme: Path) -> None:
    results = doctest.testfile(str(readme), module_relative=False, report=True)
    assert results.attempted >= 4
    assert results.failed == 0


@pytest.mark.parametrize("readme", READMES, ids=["policy", "compiler"])
def test_every_module_is_named(readme: Path) -> None:
    text = readme.read_text()
    modules = [path.name for path in readme.parent.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if f"`{name}`" not in text] == []
