"""The interface and the source address with which pods' packets leave a node, in a VPC that drops wrong sources.

pod-0 (address of eth0) [ node ] eth0 -+
pod-1 (address of eth1) [      ] eth1 -+- segment [ vpc ] 172.18.0.1, 172.18.0.4, the outside
"""

from __future__ import annotations

import asyncio
import os
from unittest import mock

import pytest

from kubewire.components.kernel import iproute, iptables
from kubewire.components.networks.aws_vpc_cni import dataplane
from kubewire.components.networks.aws_vpc_cni.environment import Configuration
from kubewire.components.networks.aws_vpc_cni.plugin import cni
from kubewire.components.networks.aws_vpc_cni.pool import Eni
from kubewire.components.networks.cni_plugin.contract import Call
from tests.components.networks.flows import NOTHING, Flow, Hosts
from tests.scratch import isolated

VPC, OUTSIDE, OTHER = "172.18.0.0/16", "203.0.113.10", "172.18.0.4"
FIRST = Eni("eni-0", 0, "02:00:00:00:00:00", "172.18.0.3", VPC, ["172.18.0.20"])
SECOND = Eni("eni-1", 1, "02:00:00:00:00:01", "172.18.0.13", VPC, ["172.18.0.21"])
PODS = {"pod-0": FIRST, "pod-1": SECOND}
NODE = FIRST.primary
POD0, POD1 = FIRST.addresses[0], SECOND.addresses[0]
FLOWS = [
    Flow("from a pod of the first interface to the VPC", "pod-0", OTHER, "vpc", POD0),
    Flow("from a pod of the second interface to the VPC", "pod-1", OTHER, "vpc", POD1),
    Flow("between pods of both interfaces", "pod-0", POD1, "pod-1", POD0),
    Flow("from the VPC to a pod of the second interface", "vpc", POD1, "pod-1", OTHER, sender=OTHER),
    Flow("from a pod of the first interface to the outside", "pod-0", OUTSIDE, "vpc", NODE),
    Flow("from a pod of the second interface to the outside", "pod-1", OUTSIDE, "vpc", NODE),
    Flow("the same by TCP", "pod-1", OUTSIDE, "vpc", NODE, protocol="TCP"),
    Flow(
        "from the outside by a port of the node to a pod of the second interface",
        "vpc",
        NODE,
        "pod-1",
        OUTSIDE,
        sender=OUTSIDE,
        at=POD1,
        port=30080,
    ),
]
#: With AWS_VPC_K8S_CNI_EXTERNALSNAT a gateway outside of the node would translate addresses; this test has none.
UNTRANSLATED = [
    Flow("from a pod of the first interface to the outside", "pod-0", OUTSIDE, "vpc", POD0),
    Flow("from a pod of the second interface to the outside", "pod-1", OUTSIDE, "vpc", POD1),
]


def build() -> Hosts:
    hosts = Hosts("node", "vpc", *PODS)
    # A bridge without a MAC of its own takes that of a port, and forgets its neighbours with each change.
    hosts.ip(
        "vpc",
        "link add segment address 02:00:00:00:00:fe type bridge",
        "address add 172.18.0.1/16 dev segment",
        "link set segment up",
    )
    hosts.ip("vpc", *(f"address add {address}/32 dev lo" for address in (OTHER, OUTSIDE)))
    for eni in PODS.values():
        hosts.wire("node", eni.device, "vpc", f"port-{eni.index}")
        hosts.ip("node", f"link set {eni.device} address {eni.mac}")
        hosts.ip("vpc", f"link set port-{eni.index} master segment")
        # The mapping service: the VPC knows the MAC of each address.
        known = [eni.primary, *eni.addresses]
        hosts.ip("vpc", *(f"neigh replace {address} lladdr {eni.mac} dev segment nud permanent" for address in known))
    hosts.run("vpc", "nft", "add table bridge vpc; " + "; ".join(_source_check()))
    hosts.ip("node", f"address add {NODE}/16 dev eth0", "route add default via 172.18.0.1")
    hosts.sysctl("node", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
    hosts.run("node", *"iptables -t nat -A PREROUTING -p udp --dport 30080 -j DNAT --to-destination".split(), POD1)
    return hosts


def _source_check() -> list[str]:
    """A port drops packets whose source is not an address of its interface."""
    lines = ["add chain bridge vpc source { type filter hook prerouting priority -300; }"]
    for eni in PODS.values():
        own = ", ".join([eni.primary, *eni.addresses])
        lines.append(f'add rule bridge vpc source iifname "port-{eni.index}" ip saddr != {{ {own} }} drop')
    return lines


def write(hosts: Hosts, wanted: Configuration) -> None:
    """Does what ipamd and the plugin do."""
    rules = dataplane.rules(VPC, NODE, "eth0", wanted)
    lines = [*dataplane.eni_setup(SECOND, 1500), dataplane.mark_rule()]
    lines += dataplane.external_rules(wanted.external, 0)
    with hosts.inside("node"):
        asyncio.run(iproute.batch("ip", iproute.text(lines), check=False))
        asyncio.run(iptables.ensure(rules))
        for pod, eni in PODS.items():
            about = {"CNI_CONTAINERID": pod, "CNI_NETNS": f"/run/netns/{pod}", "CNI_IFNAME": "eth0"}
            with mock.patch.dict(os.environ, about):
                cni.connect(Call({}), eni.addresses[0], eni.table)


def walk(flows: list[Flow], **environment: str) -> dict[str, str]:
    hosts = build()
    write(hosts, Configuration.of(environment))
    return hosts.senders_of(flows)


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    found: dict[str, str] = isolated(walk, FLOWS)
    return found


@pytest.mark.packet
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.title)
def test_the_source_address_that_the_receiver_sees(seen: dict[str, str], flow: Flow) -> None:
    assert seen[flow.title] == flow.seen


def translated_with(*environment: str) -> dict[str, str]:
    return walk(UNTRANSLATED, **dict(zip(environment[::2], environment[1::2], strict=True)))


EXCLUDED = ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "198.51.100.0/24, none, 203.0.113.0/24")
EXTERNAL = ("AWS_EXTERNAL_SERVICE_CIDRS", "203.0.113.0/24")


@pytest.mark.packet
def test_excluded_ranges_see_the_pods_addresses() -> None:
    assert isolated(translated_with, *EXCLUDED) == {flow.title: flow.seen for flow in UNTRANSLATED}


@pytest.mark.packet
def test_ranges_of_external_services_are_reached_by_the_first_interface() -> None:
    """Where the VPC drops the address of a pod of the second one, if it is not translated."""
    seen = isolated(translated_with, *EXCLUDED, *EXTERNAL)
    assert list(seen.values()) == [POD0, NOTHING]


@pytest.mark.packet
def test_with_external_snat_nothing_is_translated() -> None:
    assert isolated(translated_with, "AWS_VPC_K8S_CNI_EXTERNALSNAT", "true") == {
        flow.title: flow.seen for flow in UNTRANSLATED
    }


def without_the_interfaces_table() -> str:
    hosts = build()
    write(hosts, Configuration())
    hosts.run("node", "ip", "rule", "delete", "priority", "1536")
    return hosts.sender_of(Flow("", "pod-1", OTHER, "vpc", NOTHING))


@pytest.mark.packet
def test_the_vpc_drops_what_leaves_by_another_interface() -> None:
    assert isolated(without_the_interfaces_table) == NOTHING
