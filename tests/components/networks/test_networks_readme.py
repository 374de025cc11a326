"""The example of components/networks/README.md does what it says, and every network is in its table."""

from __future__ import annotations

import doctest
from pathlib import Path

NETWORKS = Path(__file__).parents[3] / "components/networks"
README = NETWORKS / "README.md"


def test_the_example() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert (failed, tried > 0) == (0, True)


def test_every_network_is_in_the_table() -> None:
    text = README.read_text()
    folders = [path.parent.name for path in NETWORKS.glob("*/README.md")]
    assert [name for name in folders if f"| [{name}]({name}/README.md) |" not in text] == []
