"""One scratch node for all tests of the kubelet that send packets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kubelet_node import Scratch


@pytest.fixture(scope="session")
def scratch_node() -> Iterator[Scratch]:
    scratch = Scratch()
    try:
        yield scratch
    finally:
        scratch.close()
