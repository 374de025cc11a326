"""The source addresses of packets that pass ip-masq-agent's chain."""

from __future__ import annotations

import asyncio

import pytest

from kubewire.components.kernel import iptables
from kubewire.components.networks.azure_cni import masquerade
from tests.components.networks.flows import Flow, Hosts
from tests.scratch import isolated

NODE, POD, OTHER, OUTSIDE = "10.0.0.4", "10.0.0.5", "10.0.1.4", "203.0.113.10"
OVERLAY_POD = "10.244.1.5"
FLOWS = [
    Flow("from a pod to the VNET", "pod", OTHER, "router", POD),
    Flow("from a pod of an overlay to the VNET", "pod", OTHER, "router", OVERLAY_POD, sender=OVERLAY_POD),
    Flow("from a pod to its node", "pod", NODE, "node", POD),
    Flow("from a pod to the outside", "pod", OUTSIDE, "router", NODE),
    Flow("from a pod of an overlay to the outside", "pod", OUTSIDE, "router", NODE, sender=OVERLAY_POD),
    Flow("from a pod to the outside, by TCP", "pod", OUTSIDE, "router", NODE, protocol="TCP"),
    Flow("from a node to the outside", "node", OUTSIDE, "router", NODE),
    Flow("from the outside to a pod", "router", POD, "pod", OTHER, sender=OTHER),
]


def walk() -> dict[str, str]:
    hosts = Hosts("pod", "node", "router")
    hosts.wire("node", "eth0", "router", "eth0")
    hosts.wire("pod", "eth0", "node", "azv1")
    hosts.ip("router", *(f"address add {address}/32 dev lo" for address in (OTHER, OUTSIDE)))
    hosts.ip("router", "address add 10.0.0.1/24 dev eth0", f"route add 10.244.1.0/24 via {NODE}")
    hosts.ip("router", f"neigh replace {POD} lladdr {hosts.mac_of('node', 'eth0')} dev eth0 nud permanent")
    hosts.ip("node", f"address add {NODE}/24 dev eth0", "route add default via 10.0.0.1")
    hosts.ip("node", *(f"route add {address} dev azv1" for address in (POD, OVERLAY_POD)))
    hosts.ip("pod", *(f"address add {address}/32 dev eth0" for address in (POD, OVERLAY_POD)))
    gateway = f"neigh replace 169.254.1.1 lladdr {hosts.mac_of('node', 'azv1')} dev eth0 nud permanent"
    hosts.ip("pod", "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1", gateway)
    hosts.sysctl("node", "net.ipv4.ip_forward=1")
    with hosts.inside("node"):
        asyncio.run(iptables.ensure(masquerade.rules(["10.0.0.0/16", "10.244.0.0/16"])))
    return hosts.senders_of(FLOWS)


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    found: dict[str, str] = isolated(walk)
    return found


@pytest.mark.packet
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.title)
def test_the_source_address_that_the_receiver_sees(seen: dict[str, str], flow: Flow) -> None:
    assert seen[flow.title] == flow.seen
