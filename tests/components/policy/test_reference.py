"""Compiler and evaluator against a second reading of NetworkPolicy: the API's text as a function of
the objects themselves, without sets, indexes or compiled rules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.evaluator import Evaluator, Flow
from tests.components.policy.objects import Object, namespace, pod
from tests.components.policy.strategies import LABELS, NETWORK_POLICIES, POD_PORTS

PLACES = tuple(itertools.product("xy", "ab"))
ADDRESSES = {place: (f"10.0.0.{number}", f"fd00::{number}") for number, place in enumerate(PLACES, 1)}
OUTSIDE = ("192.0.2.1", "2001:db8::1")
PORTS = ((80, "TCP"), (81, "TCP"), (85, "TCP"), (53, "UDP"), (80, "UDP"))

Pods = Mapping[str, Object]


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    return all(holds(expression, labels) for expression in selector.get("matchExpressions", []))


def holds(expression: Object, labels: Mapping[str, str]) -> bool:
    found, operator = labels.get(expression["key"]), expression["operator"]
    if operator in {"Exists", "DoesNotExist"}:
        return (found is not None) == (operator == "Exists")
    return (found in expression["values"]) == (operator == "In")


def is_peer(peer: Object, own: str, address: str, pods: Pods, spaces: Mapping[str, Mapping[str, str]]) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = ip_address(address) in ip_network(block["cidr"])
        return inside and not any(ip_address(address) in ip_network(net) for net in block.get("except", []))
    found = pods.get(address)
    if found is None:
        return False
    where = found["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], spaces[where]):
            return False
    elif where != own:
        return False
    return selects(peer.get("podSelector", {}), found["metadata"]["labels"])


def is_port(entry: Object, number: int, protocol: str, at: Object | None) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    wanted = entry.get("port")
    if isinstance(wanted, str):
        ports = at["spec"]["containers"][0]["ports"] if at else []
        return any((one["name"], one["protocol"], one["containerPort"]) == (wanted, protocol, number) for one in ports)
    if wanted is None:
        return True
    first, last = int(wanted), int(entry.get("endPort") or wanted)
    return first <= number <= last


def allows(
    policies: list[Object],
    direction: str,
    pod_of: Object | None,
    other: str,
    at: Object | None,
    port: tuple[int, str],
    pods: Pods,
    spaces: Mapping[str, Mapping[str, str]],
) -> bool:
    """What the policies of one end say. at: the pod at the destination, whose ports have names."""
    if pod_of is None:
        return True
    isolated = False
    for policy in policies:
        own, spec = policy["metadata"]["namespace"], policy["spec"]
        types = spec["policyTypes"] or ["Ingress", *(["Egress"] if spec["egress"] else [])]
        if own != pod_of["metadata"]["namespace"] or direction not in types:
            continue
        if not selects(spec["podSelector"], pod_of["metadata"]["labels"]):
            continue
        isolated = True
        for rule in spec[direction.lower()]:
            peers = rule["from" if direction == "Ingress" else "to"]
            if peers and not any(is_peer(peer, own, other, pods, spaces) for peer in peers):
                continue
            if rule["ports"] and not any(is_port(entry, *port, at) for entry in rule["ports"]):
                continue
            return True
    return not isolated


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Object], list[Object], list[Object]]:
    spaces = [namespace(name, draw(LABELS)) for name in "xy"]
    pods = [
        pod(name, where, addresses=ADDRESSES[where, name], labels=draw(LABELS), ports=draw(POD_PORTS))
        for where, name in PLACES
    ]
    policies = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one
        for one in draw(st.lists(NETWORK_POLICIES, min_size=1, max_size=4))
    }
    return spaces, pods, list(policies.values())


@settings(max_examples=100, deadline=None, phases=[Phase.reuse, Phase.generate, Phase.shrink])
@given(worlds())
def test_every_pair_is_judged_as_the_text_has_it(world: tuple[list[Object], list[Object], list[Object]]) -> None:
    spaces, pods, policies = world
    compiler = Compiler()
    for obj in itertools.chain(*world):
        compiler.apply(obj)
    evaluator = Evaluator(compiler.state)
    labels = {one["metadata"]["name"]: one["metadata"]["labels"] for one in spaces}
    for family in (0, 1):
        by_address: dict[str, Any] = {one["status"]["podIPs"][family]["ip"]: one for one in pods}
        for source, destination in itertools.permutations([*by_address, OUTSIDE[family]], 2):
            here, there = by_address.get(source), by_address.get(destination)
            for port in PORTS:
                expected = allows(policies, "Egress", here, destination, there, port, by_address, labels) and allows(
                    policies, "Ingress", there, source, there, port, by_address, labels
                )
                verdict = evaluator.verdict(Flow(source, destination, port[1], port[0]))
                assert verdict.allowed == expected, f"{source} -> {destination} {port}: {verdict}"
