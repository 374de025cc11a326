"""Weave NPC's chains on packets: pods on the bridge of a node, every policy as a matrix of connections."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network
from typing import Any

import pytest

from kubewire.components.kernel import ipset, iptables
from kubewire.components.networks.weave import dataplane
from kubewire.components.policy.applier import Applier
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.weave_npc import names, render
from tests.components.networks.flows import Hosts
from tests.components.policy import objects
from tests.components.policy.ground import Ground, Try, differences, tries
from tests.scratch import isolated

PORTS = (("TCP", 80), ("TCP", 81), ("UDP", 80))
PODS = {"x-a": "10.32.0.11", "x-b": "10.32.0.12", "y-a": "10.32.0.21", "y-c": "10.32.0.23"}
RANGE = IPv4Network("10.32.0.0/12")
EVERYTHING = tries(PODS, PORTS)

Object = dict[str, Any]
Allowed = Callable[[Try], bool]


def pod_objects() -> Iterable[Object]:
    for name in ("x", "y"):
        yield objects.namespace(name, {"team": name})
    for full, address in PODS.items():
        where, _, name = full.partition("-")
        yield objects.pod(name, where, addresses=[address], labels={"app": name})


def ground() -> Ground:
    """A node with the bridge weave, to which each pod has a veth, and weave-net's rules."""
    hosts = Hosts("node", *PODS)
    hosts.ip("node", "link add weave type bridge", "link set weave up", "address add 10.32.0.1/12 dev weave")
    for number, (pod, address) in enumerate(PODS.items()):
        hosts.wire("node", f"vethwepl{number}", pod, "eth0")
        hosts.ip("node", f"link set vethwepl{number} master weave")
        hosts.ip(pod, f"address add {address}/12 dev eth0", "route add default via 10.32.0.1")
    hosts.sysctl("node", "net.bridge.bridge-nf-call-iptables=1", "net.ipv4.ip_forward=1")
    return Ground(hosts, PODS, PORTS)


async def enforce(applier: Applier, *policies: Object) -> render.Rendered:
    compiler = Compiler()
    for obj in (*pod_objects(), *policies):
        compiler.apply(obj)
    rendered = render.render(compiler.state, render.Options())
    await applier.apply(rendered.ruleset, rendered.sets)
    return rendered


async def steer() -> None:
    await ipset.restore(dataplane.own_set([]))
    for chain in (dataplane.NPC_MAIN, dataplane.NPC_EGRESS):
        await iptables.create("filter", chain)
    await iptables.ensure(dataplane.rules(RANGE, None, expect_npc=True))


def peer(**labels: str) -> Object:
    return {"podSelector": {"matchLabels": labels}}


def into(pod: str) -> Callable[[Try], bool]:
    return lambda one: one.destination == pod


DENY = objects.network_policy("deny", "x", policyTypes=["Ingress"])
#: (what it shows, policies, which connections work)
CASES: list[tuple[str, list[Object], Allowed]] = [
    ("no policy", [], lambda one: True),
    ("default deny of ingress", [DENY], lambda one: not one.destination.startswith("x")),
    (
        "default deny of egress",
        [objects.network_policy("deny", "x", policyTypes=["Egress"])],
        lambda one: not one.source.startswith("x"),
    ),
    (
        "a peer in the same namespace, and policies add up",
        [DENY, objects.network_policy("allow", "x", ingress=[{"from": [peer(app="a")]}])],
        lambda one: not one.destination.startswith("x") or one.source == "x-a",
    ),
    (
        "all pods of a namespace",
        [
            objects.network_policy(
                "allow", "x", ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}]}]
            )
        ],
        lambda one: not one.destination.startswith("x") or one.source.startswith("y"),
    ),
    (
        "some pods of a namespace",
        [
            objects.network_policy(
                "allow",
                "x",
                ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}, **peer(app="c")}]}],
            )
        ],
        lambda one: not one.destination.startswith("x") or one.source == "y-c",
    ),
    (
        "the dash that makes OR of AND",
        [
            objects.network_policy(
                "allow",
                "x",
                ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}, peer(app="a")]}],
            )
        ],
        lambda one: not one.destination.startswith("x") or one.source.startswith("y") or one.source == "x-a",
    ),
    (
        "ports and protocols",
        [objects.network_policy("ports", "x", ingress=[{"ports": [{"port": 80}, {"protocol": "UDP", "port": 80}]}])],
        lambda one: not one.destination.startswith("x") or one.port == 80,
    ),
    (
        "a block with an exception",
        [
            objects.network_policy(
                "block", "x", ingress=[{"from": [{"ipBlock": {"cidr": "10.32.0.0/24", "except": ["10.32.0.21/32"]}}]}]
            )
        ],
        lambda one: not one.destination.startswith("x") or one.source != "y-a",
    ),
    (
        "egress to some pods on a port",
        [
            objects.network_policy(
                "egress",
                "x",
                policyTypes=["Egress"],
                egress=[{"to": [{"namespaceSelector": {}, **peer(app="c")}], "ports": [{"port": 81}]}],
            )
        ],
        lambda one: (
            not one.source.startswith("x") or (one.destination == "y-c" and (one.protocol, one.port) == ("TCP", 81))
        ),
    ),
    (
        "egress allowed, and ingress of the other refused",
        [
            objects.network_policy("egress", "x", policyTypes=["Egress"], egress=[{}]),
            objects.network_policy("deny", "y", policyTypes=["Ingress"]),
        ],
        lambda one: not one.destination.startswith("y"),
    ),
    (
        "a policy with a named port is rejected as a whole",
        [objects.network_policy("named", "x", ingress=[{"ports": [{"port": "http"}]}])],
        lambda one: True,
    ),
]


@pytest.mark.packet
def test_every_policy_as_a_matrix() -> None:
    found = isolated(_matrices, timeout=200)
    assert found == {title: "" for title, _, _ in CASES}


def _matrices() -> dict[str, str]:
    applier, found = Applier(names.SET_PREFIX), {}
    place = ground()
    with place.hosts.inside("node"):
        asyncio.run(steer())
    with place.listening():
        for title, policies, allowed in CASES:
            with place.hosts.inside("node"):
                asyncio.run(enforce(applier, *policies))
            expected = [one for one in EVERYTHING if allowed(one)]
            found[title] = differences(place.reached(EVERYTHING, expected), expected)
    return found


@pytest.mark.packet
def test_what_is_there_is_not_written_again_and_nothing_stays_behind() -> None:
    before, again, sets, empty = isolated(_written_once, timeout=100)
    assert before == again, "counters of rules that were not touched go on"
    assert sets > empty > 0


def _written_once() -> tuple[str, str, int, int]:
    policies = CASES[8][1]
    place = ground()
    with place.hosts.inside("node"):
        asyncio.run(steer())
        asyncio.run(enforce(Applier(names.SET_PREFIX), *policies))
        before = _saved()
        asyncio.run(enforce(Applier(names.SET_PREFIX), *policies))
        again, sets = _saved(), _sets()
        asyncio.run(enforce(Applier(names.SET_PREFIX)))
        return before, again, sets, _sets()


def _saved() -> str:
    saved = subprocess.run(["iptables-save", "-t", "filter"], check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in saved.splitlines() if not line.startswith("#"))


def _sets() -> int:
    listed = subprocess.run(["ipset", "list", "-name"], check=True, capture_output=True, text=True).stdout
    return len([name for name in listed.split() if name.startswith("weave-")])
