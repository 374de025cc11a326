"""Kernels for the tests marked vm: each that is built and runs here.

The tests of the others are skipped with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kubewire.lab.commands.virtual import TESTED
from kubewire.vm import build
from kubewire.vm.cache import Built
from kubewire.vm.kernels import named
from kubewire.vm.kernels.base import Kernel


@pytest.fixture(params=TESTED)
def kernel(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> tuple[Kernel, Built]:
    """Each kernel that is built. The closing summary tells which test ran on which (tests/conftest.py)."""
    return built(request.param, record_property)


@pytest.fixture
def any_kernel(record_property: Callable[[str, object], None]) -> tuple[Kernel, Built]:
    """The first of them that is built."""
    for name in TESTED:
        if build.find(named(name)):
            return built(name, record_property)
    pytest.skip(none_at_all())


def none_at_all() -> str:
    """Why there is no kernel to test with."""
    return "; ".join(build.missing(named(name)) for name in TESTED)


def built(name: str, record_property: Callable[[str, object], None]) -> tuple[Kernel, Built]:
    kernel = named(name)
    found = build.find(kernel)
    if found is None:
        pytest.skip(build.missing(kernel))
    record_property("ran_on", f"virtual machine {name} ({found.release})")
    return kernel, found
