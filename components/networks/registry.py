"""The list of pod networks. A new one is a folder with a descriptor (network.py), and an import and
an entry here.

`python -m kubewire.lab.setup.generate` then writes the files that list the networks: the lab file's
schema and its page, the table of the README, and the matrix of the scenario that checks every
network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubewire.components.addon import Setting
from kubewire.components.networks.aws_vpc_cni import network as aws_vpc
from kubewire.components.networks.azure_cni import network as azure
from kubewire.components.networks.calico import network as calico
from kubewire.components.networks.flannel import network as flannel
from kubewire.components.networks.none import network as none
from kubewire.components.networks.podnetwork import PodNetwork
from kubewire.components.networks.weave import network as weave

#: In the order of the documentation; the first is the default.
NETWORKS: tuple[PodNetwork[Any], ...] = (
    flannel.NETWORK,
    calico.NETWORK,
    weave.NETWORK,
    aws_vpc.NETWORK,
    azure.NETWORK,
    none.NETWORK,
)


def network(name: str) -> PodNetwork[Any]:
    """Raises KeyError."""
    return {one.name: one for one in NETWORKS}[name]


def settings() -> tuple[Setting, ...]:
    """The settings of all networks, each once."""
    return tuple(
        {setting.name: setting for one in NETWORKS for setting in one.addon.settings}.values()
    )


def networks_with(setting: str) -> list[str]:
    """The names of the networks that have a setting."""
    return [one.name for one in NETWORKS if setting in {own.name for own in one.addon.settings}]


def backend_names() -> list[str]:
    """The names of all backends, each once."""
    return list(dict.fromkeys(name for one in NETWORKS for name in one.addon.backend_names))


def dual_stack_networks() -> list[str]:
    """The names of the networks that can give pods IPv6 addresses."""
    return [one.name for one in NETWORKS if one.connects_pods and one.ipv4_only is None]


def directories() -> Iterator[str]:
    """The private directories of each node for all networks, because one may be installed later."""
    for one in NETWORKS:
        yield from one.addon.directories


def schema() -> dict[str, Any]:
    """The JSON Schema of `cni` in a lab file."""
    own = {setting.name: dict(setting.schema) for setting in settings()}
    properties = {
        "plugin": {"enum": [one.name for one in NETWORKS]},
        "backend": {"enum": backend_names()},
        **own,
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}
