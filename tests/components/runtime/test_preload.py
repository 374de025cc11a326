"""What the forking parents import: every component, whether or not anybody has written it down."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.networks.podnetwork import PodNetwork
from kubewire.components.networks.registry import NETWORKS
from kubewire.components.runtime import preload

COMPONENTS = Path(preload.__file__).parent.parent


@pytest.mark.parametrize("network", [one for one in NETWORKS if one.name != "none"], ids=lambda one: one.name)
def test_the_agent_of_every_network_is_in_memory_before_its_fork(network: PodNetwork[Any]) -> None:
    assert f"{network.addon.package}.main" in preload.components()


def test_what_is_not_in_memory_is_the_runtime_itself_and_what_containers_run() -> None:
    mains = {path.parent.name for path in COMPONENTS.glob("**/main.py")}
    known = {name.split(".")[-2] for name in preload.components() if name.endswith(".main")}
    assert mains - known == {"agnhost", "runtime"}


def test_every_module_is_there() -> None:
    # A module that a program has loaded need not have a spec (cryptography's have none).
    wanted = {*preload.LIGHT, *preload.components()} - sys.modules.keys()
    assert [name for name in wanted if find_spec(name) is None] == []
