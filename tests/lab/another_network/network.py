"""The descriptor of a network for a test: Debian's bridge plugin on every node, and an agent that sets a route to each
other node. test_another_network.py puts this folder into a copy of the tree, as components/networks/static."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    File,
    Host,
    Installation,
    Process,
    Role,
    Setting,
)
from kubewire.components.networks.podnetwork import PodNetwork


@dataclass(frozen=True)
class Mode:
    """hairpin: whether a pod reaches itself by its Service."""

    hairpin: bool


def _ranges(cluster: Cluster) -> dict[str, str]:
    """Node -> its pods' range."""
    subnets = cluster.pod_ranges[0].subnets(new_prefix=24)
    return {node.name: str(subnet) for node, subnet in zip(cluster.nodes, subnets, strict=False)}


def _install(cluster: Cluster, choice: Choice[Mode]) -> Installation:
    return Installation(
        processes=tuple(_agent(node, cluster, choice) for node in cluster.nodes),
        files=tuple(_conflist(node, cluster, choice) for node in cluster.nodes),
        objects=({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "static-system"}},),
    )


def _agent(node: Host, cluster: Cluster, choice: Choice[Mode]) -> Process:
    ranges = _ranges(cluster)
    others = [other for other in cluster.nodes if other.name != node.name]
    routes = [f"--route={ranges[other.name]},{other.addresses[0]}" for other in others]
    arguments = (f"--metric={choice.settings['metric']}", *routes)
    user = "system:serviceaccount:static-system:static"
    return Process(Role.AGENT, node.name, "static-agent", f"{__package__}.main:main", arguments, user)


def _conflist(node: Host, cluster: Cluster, choice: Choice[Mode]) -> File:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": _ranges(cluster)[node.name]}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "static0",
        "isGateway": True,
        "hairpinMode": choice.mode.hairpin,
        "ipam": ipam,
    }
    network = {"cniVersion": "1.0.0", "name": "static", "plugins": [bridge]}
    return File(node.name, "/etc/cni/net.d/10-static.conflist", json.dumps(network).encode())


NETWORK = PodNetwork(
    AddOn(
        name="static",
        package=__package__,
        upstream="nobody's",
        summary="a route to the other node, written down",
        backends=(Backend("with-hairpin", Mode(hairpin=True)), Backend("without-hairpin", Mode(hairpin=False))),
        install=_install,
        settings=(Setting("metric", {"type": "integer", "minimum": 1, "description": "of the routes"}, 7),),
        directories=("/etc/static",),
    )
)
