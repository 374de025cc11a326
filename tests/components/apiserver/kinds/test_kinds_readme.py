"""The README's example does what it says, and its sections are there."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[4] / "components/apiserver/kinds/README.md"


def test_the_example_runs_as_written() -> None:
    results = doctest.testfile(str(README), module_relative=False, report=True)
    assert results.attempted >= 5
    assert results.failed == 0


@pytest.mark.parametrize("section", ["Where it sits", "Configuration", "Example", "Differences from upstream", "Links"])
def test_the_readme_has_its_sections(section: str) -> None:
    assert f"## {section}\n" in README.read_text()
