"""The example of topologies/README.md does what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

from kubewire.topologies.shapes import SHAPES

README = Path(__file__).parents[2] / "topologies/README.md"


def test_the_example_runs_as_written() -> None:
    results = doctest.testfile(str(README), module_relative=False, report=True)
    assert results.attempted >= 4
    assert results.failed == 0


def test_every_shape_is_described() -> None:
    assert [shape for shape in SHAPES if f"`{shape}`" not in README.read_text()] == []
