"""The example of components/kernel/README.md does what it says, and every module is named there."""

from __future__ import annotations

import doctest
from pathlib import Path

KERNEL = Path(__file__).parents[3] / "components/kernel"
README = KERNEL / "README.md"


def test_the_example_holds() -> None:
    results = doctest.testfile(str(README), module_relative=False, report=True)
    assert results.attempted >= 3
    assert results.failed == 0


def test_every_module_is_named() -> None:
    text = README.read_text()
    modules = [path.name for path in KERNEL.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if f"`{name}`" not in text] == []
