"""One scratch node for all tests of the kubelet that send packets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.components.kubelet.kubelet_node import Scratch


@pytest.fixture(scope="session")
def scratch_node() -> Iterator[Scratch]:
    scratch = Scratch()
    try:
        yield scratch
    finally:
        scratch.close()
