"""What the switches of a VPC forward between four instances of one subnet, one of which uses addresses of the others."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from kubewire.components.vpc.kernel import Kernel
from kubewire.components.vpc.model import ANYWHERE, Rule, Subnet, Vpc
from tests.components.networks.flows import NOTHING, Flow, Hosts
from tests.scratch import isolated

SWITCH = "subnet"
ROUTER = ("10.0.0.1", "02:00:00:00:00:01", f"router@{SWITCH}")
#: Instance -> its address, its MAC and its security group.
INSTANCES = {
    "client": ("10.0.0.5", "02:00:00:00:00:05", "clients"),
    "web": ("10.0.0.6", "02:00:00:00:00:06", "web"),
    "node": ("10.0.0.7", "02:00:00:00:00:07", "nodes"),
    "thief": ("10.0.0.8", "02:00:00:00:00:08", "nodes"),
}
CLIENT, WEB, NODE, THIEF = (address for address, _, _ in INSTANCES.values())
#: The first address of the subnet that is free.
FREE = "10.0.0.4"
POD, OUTSIDE = "10.244.1.5", "203.0.113.10"
#: "clients" lets nothing in, "web" what clients ask on a few ports, "nodes" everything.
GROUPS = {
    "clients": [],
    "web": [Rule("clients", "tcp", (80, 90)), Rule("clients", "udp", (53, 53))],
    "nodes": [Rule(ANYWHERE)],
}
FLOWS = [
    Flow("to a port that a group's rule allows", "client", WEB, "web", CLIENT, protocol="TCP", port=80),
    Flow("to the last port of the rule's range", "client", WEB, "web", CLIENT, protocol="TCP", port=90),
    Flow("to the next port", "client", WEB, "web", NOTHING, protocol="TCP", port=91),
    Flow("by UDP, where the answer needs no rule either", "client", WEB, "web", CLIENT, port=53),
    Flow("by a protocol that the rule does not name", "client", WEB, "web", NOTHING, port=80),
    Flow("from an instance that is not in the rule's group", "node", WEB, "web", NOTHING, protocol="TCP", port=80),
    Flow("to a group without rules", "web", CLIENT, "client", NOTHING, protocol="TCP", port=80),
    Flow("to a group that allows all", "web", NODE, "node", WEB),
    Flow("from an address that no interface has", "client", NODE, "node", NOTHING, sender=FREE),
    Flow("from the address of another instance", "thief", NODE, "node", NOTHING, sender=WEB),
    Flow("to a range that is routed to an instance", "router", POD, "node", OUTSIDE, sender=OUTSIDE),
    Flow("from a range that is routed to an instance", "node", OUTSIDE, "router", POD, sender=POD),
    Flow("from such a range by another instance", "thief", OUTSIDE, "router", NOTHING, sender=POD),
    Flow("to the outside", "client", OUTSIDE, "router", CLIENT),
]
ASSIGNED = [
    Flow("from an address that was assigned", "client", NODE, "node", FREE, sender=FREE),
    Flow("to it, by a rule that was authorized", "router", FREE, "client", OUTSIDE, sender=OUTSIDE),
    Flow("to it, where no rule was authorized", "node", FREE, "client", NOTHING),
]
TAKEN_AWAY = [Flow("from an address that was taken away", "client", NODE, "node", NOTHING, sender=FREE)]
ALL = [*FLOWS, *ASSIGNED, *TAKEN_AWAY]


def model() -> Vpc:
    vpc = Vpc("10.0.0.0/16", [Subnet("subnet-a", "10.0.0.0/24", SWITCH, ROUTER)])
    for name, rules in GROUPS.items():
        vpc.create_group(name)
        for rule in rules:
            vpc.authorize(name, rule)
    for name, (address, mac, group) in INSTANCES.items():
        vpc.launch(name, "m5.large", "subnet-a", address, mac, f"{name}@{SWITCH}", group)
    node = vpc.instance_at(NODE)
    assert node is not None
    vpc.create_route("10.244.1.0/24", node.id)
    return vpc


def build() -> Hosts:
    hosts = Hosts("switches", "router", *INSTANCES)
    for name in ("switches", "router", *INSTANCES):
        hosts.sysctl(name, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    hosts.ip("switches", f"link add {SWITCH} type bridge", f"link set {SWITCH} up")
    macs = {"router": ROUTER[1]} | {name: mac for name, (_, mac, _) in INSTANCES.items()}
    for name, mac in macs.items():
        hosts.wire(name, "eth0", "switches", f"{name}@{SWITCH}")
        hosts.ip(name, f"link set eth0 address {mac}")
        hosts.ip("switches", f"link set {name}@{SWITCH} master {SWITCH}")
    for name, (address, _, _) in INSTANCES.items():
        hosts.ip(name, f"address add {address}/24 dev eth0", f"route add default via {ROUTER[0]}")
        # An ARP request names the instance's own address, whatever the source of the packet is. So the switch drops
        # the packet and not the ARP request before it.
        hosts.sysctl(name, "net.ipv4.conf.eth0.arp_announce=2")
    hosts.ip("router", f"address add {ROUTER[0]}/24 dev eth0", f"address add {OUTSIDE}/32 dev lo")
    hosts.ip("node", f"address add {POD}/32 dev lo")
    hosts.ip("client", f"address add {FREE}/32 dev lo")
    # On an ordinary switch it would answer ARP requests for these addresses too.
    hosts.ip("thief", f"address add {WEB}/32 dev eth0", f"address add {POD}/32 dev eth0")
    return hosts


def heard(hosts: Hosts) -> int:
    """The number of frames that the thief has received."""
    return int(hosts.run("thief", "cat", "/sys/class/net/eth0/statistics/rx_packets"))


def walk() -> dict[str, Any]:
    hosts, vpc = build(), model()
    holder = ["ip", "netns", "exec", "router", "sh", "-c", "echo ready && exec sleep 1000"]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as router:
        assert router.stdout is not None
        assert router.stdout.readline() == b"ready\n"
        with hosts.inside("switches"):
            kernel = Kernel(router.pid)
            kernel.pin(SWITCH)
            for name in ("router", *INSTANCES):
                kernel.answers_arp(f"{name}@{SWITCH}")
            kernel.apply(vpc)
        before = heard(hosts)
        seen: dict[str, Any] = dict(hosts.senders_of(FLOWS[:1]))
        seen["heard by another"] = heard(hosts) - before
        seen |= hosts.senders_of(FLOWS[1:])
        interface = next(interface for interface in vpc.interfaces.values() if interface.primary == CLIENT)
        assert vpc.assign(interface.id, 1) == [FREE]
        vpc.authorize("clients", Rule("203.0.113.0/24", "udp", (8080, 8080)))
        with hosts.inside("switches"):
            kernel.apply(vpc)
        seen |= hosts.senders_of(ASSIGNED)
        vpc.unassign(interface.id, [FREE])
        with hosts.inside("switches"):
            kernel.apply(vpc)
        seen |= hosts.senders_of(TAKEN_AWAY)
        router.kill()
    return seen


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    found: dict[str, Any] = isolated(walk, timeout=120)
    return found


@pytest.mark.packet
@pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.title)
def test_the_source_address_that_the_receiver_sees(seen: dict[str, Any], flow: Flow) -> None:
    assert seen[flow.title] == flow.seen


@pytest.mark.packet
def test_the_switch_answers_arp_so_that_nobody_else_hears_the_question(seen: dict[str, Any]) -> None:
    assert seen["heard by another"] == 0
