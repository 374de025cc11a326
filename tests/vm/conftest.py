"""Kernels for the tests marked vm: each that is built here; without any the tests are skipped with the command."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vm import build
from vm.cache import Built
from vm.kernels import KERNELS
from vm.kernels.base import Kernel

#: What the tests boot; QEMU takes minutes where KVM does not work, and is measured in benchmarks/.
TESTED = ("uml", "uml-stock")


@pytest.fixture(params=TESTED)
def kernel(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> tuple[Kernel, Built]:
    """Each kernel that is built. The closing summary tells which test ran on which (tests/conftest.py)."""
    return built(request.param, record_property)


@pytest.fixture
def any_kernel(record_property: Callable[[str, object], None]) -> tuple[Kernel, Built]:
    """The lightest kernel that is built."""
    for one in KERNELS:
        if build.find(one):
            return built(one.name, record_property)
    pytest.skip("no virtual machine's kernel is built: kubewire vm build")


def built(name: str, record_property: Callable[[str, object], None]) -> tuple[Kernel, Built]:
    (kernel,) = (one for one in KERNELS if one.name == name)
    found = build.find(kernel)
    if found is None:
        pytest.skip(f"the kernel {name} is not built: kubewire vm build --kernel {name}")
    record_property("ran_on", f"virtual machine {name} ({found.release})")
    return kernel, found
