"""The descriptor of a pod network: an add-on, and what only a pod network decides in a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from kubewire.components.addon import AddOn, Choice, Mode


@dataclass(frozen=True)
class PodAddresses:
    """Where the addresses of pods come from.

    from_cluster_cidr: the controllers give each node a part of clusterCIDR; otherwise the network
    has its own ranges. max_pods: the kubelet's maxPods, None for its default.
    """

    from_cluster_cidr: bool = True
    max_pods: int | None = None


def from_cluster_cidr(_: Choice[Any]) -> PodAddresses:
    """The addresses of a network that limits pods only by the node's part of clusterCIDR."""
    return PodAddresses()


@dataclass(frozen=True)
class IPv4Only:
    """The reason why a network cannot have IPv6, as the rest of a sentence that begins with its
    name. nodes: its nodes cannot have IPv6 either."""

    reason: str
    nodes: bool = False


@dataclass(frozen=True)
class PodNetwork(Generic[Mode]):
    """The descriptor that components/networks/NAME/network.py exports as NETWORK.

    connects_pods: nodes become Ready with it; False if the user installs a network later.
    ipv4_only: None for a network that can have both IP families.
    """

    addon: AddOn[Mode]
    addresses: Callable[[Choice[Mode]], PodAddresses] = from_cluster_cidr
    ipv4_only: IPv4Only | None = None
    connects_pods: bool = True

    @property
    def name(self) -> str:
        return self.addon.name

    @property
    def installer(self) -> str:
        """The module that installs the CNI plugins: PLUGINS are their names, plugin() makes the one
        program of all."""
        return f"{self.addon.package}.install"
