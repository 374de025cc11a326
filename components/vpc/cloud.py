"""The VPC that a cloud's network requires: its process, as a descriptor starts it. Pure."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from kubewire.components.addon import Cluster, Process, Role, Setting

MAX_PODS = Setting(
    "maxPods",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "description": "The kubelet's maxPods. Without it, as many as the cloud's addresses allow.",
        "examples": [17],
    },
)


def process(
    cluster: Cluster,
    *,
    instance_type: str = "",
    groups: Sequence[str] = (),
    reserve: int | None = None,
) -> Process:
    """The VPC of a cluster: every switch with nodes is a subnet, every node an instance.

    groups: names of security groups besides the nodes' own. reserve: the number of addresses that a
    node has from the start.
    """
    lab = {
        "cidr": cluster.node_cidr,
        "router": "@pid:router@",
        "groups": list(groups),
        "subnets": _subnets(cluster),
        "instances": _instances(cluster, instance_type, reserve),
    }
    return Process(
        Role.FABRIC, "", "vpc", f"{__package__}.main:main", (f"--lab={json.dumps(lab)}",)
    )


def _subnets(cluster: Cluster) -> list[dict[str, Any]]:
    switches = {node.interface.switch for node in cluster.nodes}
    subnets: dict[str, dict[str, Any]] = {}
    for router in cluster.routers:
        for interface in router.interfaces:
            if interface.switch in switches:
                subnets[interface.switch] = {
                    "cidr": str(ipaddress.ip_interface(interface.address).network),
                    "switch": interface.switch,
                    "router": {
                        "pid": router.pid,
                        "interface": interface.name,
                        "port": interface.port,
                        "address": interface.address.partition("/")[0],
                    },
                }
    return list(subnets.values())


def _instances(cluster: Cluster, instance_type: str, reserve: int | None) -> list[dict[str, Any]]:
    reserved = {} if reserve is None else {"reserve": reserve}
    return [
        {
            "name": node.name,
            "pid": node.pid,
            "type": instance_type,
            "address": node.addresses[0],
            "switch": node.interface.switch,
            "port": node.interface.port,
        }
        | reserved
        for node in cluster.nodes
    ]
