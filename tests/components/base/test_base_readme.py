"""The example of components/base/README.md does what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

BASE = Path(__file__).parents[3] / "components/base"
README = BASE / "README.md"


def test_the_example() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert (failed, tried > 0) == (0, True)


def test_every_module_is_named() -> None:
    text = README.read_text()
    modules = [path.name for path in BASE.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if f"`{name}`" not in text] == []
