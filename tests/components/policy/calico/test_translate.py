"""What Calico's policies mean: the subjects, directions, order and rules of each form of a field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kubewire.components.policy.compiler.calico import endpoints, translate
from kubewire.components.policy.compiler.translation import InvalidPolicy
from kubewire.components.policy.model import (
    ICMP,
    Action,
    Definition,
    Direction,
    Endpoint,
    EndpointKind,
    NamedPort,
    ObjectKey,
    Policy,
    PortRange,
    Rule,
)


def namespaced(**spec: Any) -> dict[str, Any]:
    return {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "shop"}, "spec": spec}


def cluster(**spec: Any) -> dict[str, Any]:
    return {"kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}, "spec": spec}


def policy(obj: dict[str, Any]) -> Policy:
    make = translate.network_policy if obj["kind"] == "NetworkPolicy" else translate.global_network_policy
    (found,) = make(obj).policies
    return found


def rule(**fields: Any) -> Rule:
    (found,) = policy(namespaced(ingress=[{"action": "Allow", **fields}])).ingress
    return found


def pod(name: str, namespace: str = "shop", account: str = "default", **labels: str) -> Endpoint:
    implicit = endpoints.implicit_labels(namespace, account)
    return Endpoint(
        ObjectKey("Pod", namespace, name),
        EndpointKind.POD,
        labels={**labels, **implicit},
        namespace_labels={"kubernetes.io/metadata.name": namespace, "team": namespace[0]},
        account_labels={"role": account},
    )


(NETWORK_SET,) = endpoints.network_set(
    {
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "out", "labels": {"app": "web"}},
        "spec": {"nets": ["192.0.2.0/24"]},
    }
).endpoints
(OWN_SET,) = endpoints.network_set(
    {"kind": "NetworkSet", "metadata": {"name": "own", "namespace": "shop", "labels": {"app": "web"}}, "spec": {}}
).endpoints
(HOST,) = endpoints.host_endpoint(
    {
        "kind": "HostEndpoint",
        "metadata": {"name": "h", "labels": {"app": "web"}},
        "spec": {"node": "n", "interfaceName": "*"},
    }
).endpoints
EVERYBODY = {
    "web": pod("web", app="web"),
    "db": pod("db", account="data", app="db"),
    "far": pod("far", namespace="office", app="web"),
    "set": NETWORK_SET,
    "own": OWN_SET,
    "host": HOST,
}


def members(definition: Definition) -> str:
    return " ".join(name for name, one in EVERYBODY.items() if one.is_in(definition))


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (namespaced(), "web db"),
        (namespaced(selector="app == 'web'"), "web"),
        (namespaced(serviceAccountSelector="role == 'data'"), "db"),
        (cluster(), "web db far host"),
        (cluster(selector="app == 'web'"), "web far host"),
        (cluster(namespaceSelector="team == 'o'"), "far"),
        (cluster(namespaceSelector="all()"), "web db far"),
        (cluster(namespaceSelector="global()"), "host"),
        (cluster(selector="projectcalico.org/namespace == 'office'"), "far"),
    ],
)
def test_subjects(obj: dict[str, Any], expected: str) -> None:
    assert members(policy(obj).subjects) == expected


@pytest.mark.parametrize(
    ("source", "in_namespaced", "in_global"),
    [
        ({"selector": "app == 'web'"}, "web own", "web far set own host"),
        ({"selector": "all()", "namespaceSelector": "team == 'o'"}, "far", "far"),
        ({"namespaceSelector": "all()"}, "web db far own", "web db far own"),
        ({"namespaceSelector": "global()"}, "set host", "set host"),
        ({"serviceAccounts": {"names": ["data"]}}, "db", "db"),
        ({"serviceAccounts": {"selector": "role == 'data'"}, "namespaceSelector": "all()"}, "db", "db"),
        ({"serviceAccounts": {"names": ["default"]}, "selector": "app == 'web'"}, "web", "web far"),
    ],
)
def test_peers(source: dict[str, Any], in_namespaced: str, in_global: str) -> None:
    found = []
    for make, obj in ((translate.network_policy, namespaced), (translate.global_network_policy, cluster)):
        translation = make(obj(ingress=[{"action": "Allow", "source": source}]))
        (wanted,) = translation.policies[0].ingress[0].match.source.sets
        found.append(next(members(one.definition) for one in translation.sets if one.id == wanted))
    assert found == [in_namespaced, in_global]


def test_a_rule_without_selectors_matches_everybody() -> None:
    side = rule(source={"nets": ["10.0.0.7/8"], "notNets": ["10.1.0.0/16", "fd00::1"]}).match.source
    assert (side.sets, side.not_sets) == ((), ())
    assert (side.nets, side.not_nets) == (("10.0.0.0/8",), ("10.1.0.0/16", "fd00::1/128"))


def test_not_selector_is_within_the_namespace_of_a_namespaced_policy() -> None:
    translation = translate.network_policy(
        namespaced(ingress=[{"action": "Deny", "source": {"notSelector": "app == 'web'"}}])
    )
    by_id = {one.id: members(one.definition) for one in translation.sets}
    side = translation.policies[0].ingress[0].match.source
    assert [by_id[one] for one in side.sets] == ["web db own"]
    assert [by_id[one] for one in side.not_sets] == ["web far set own host"]
    everywhere = policy(cluster(ingress=[{"action": "Deny", "source": {"notSelector": "has(a)"}}]))
    assert everywhere.ingress[0].match.source.sets == ()


def test_ports_are_numbers_ranges_and_names() -> None:
    spec = namespaced(
        ingress=[
            {
                "action": "Allow",
                "protocol": "tcp",
                "source": {"notPorts": [22]},
                "destination": {"selector": "app == 'db'", "ports": [80, "8000:9000", "http"]},
            }
        ]
    )
    translation = translate.network_policy(spec)
    match = translation.policies[0].ingress[0].match
    assert match.protocol == "TCP"
    assert match.source.not_ports == (PortRange(22, 22),)
    assert match.destination.ports == (PortRange(80, 80), PortRange(8000, 9000))
    (named,) = (one for one in translation.sets if one.named_port)
    assert named.named_port == NamedPort("TCP", "http") and members(named.definition) == "db"
    assert match.destination.port_sets == (named.id,)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "ingress"),
        ({"ingress": [{"action": "Allow"}]}, "ingress"),
        ({"egress": [{"action": "Allow"}]}, "egress"),
        ({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}, "egress ingress"),
        ({"types": ["Egress"]}, "egress"),
        ({"types": ["Ingress", "Egress"]}, "egress ingress"),
    ],
    ids=["neither", "ingress", "egress", "both", "types: Egress", "types: both"],
)
def test_types_and_their_defaults(spec: dict[str, Any], expected: str) -> None:
    assert " ".join(sorted(one.value for one in policy(namespaced(**spec)).directions)) == expected


def test_order_and_tier() -> None:
    plain, given = policy(namespaced()), policy(cluster(order=10, tier="security", applyOnForward=True))
    assert (plain.order, plain.tier) == (math.inf, "default")
    assert (given.order, given.tier, given.apply_on_forward) == (10.0, "security", True)
    (tier,) = translate.tier({"metadata": {"name": "t"}, "spec": {"order": 3, "defaultAction": "Pass"}}).tiers
    assert (tier.order, tier.default_action) == (3.0, Action.PASS)


def test_actions_protocols_and_icmp() -> None:
    found = policy(
        namespaced(
            ingress=[
                {"action": "Log", "protocol": 50},
                {"action": "Pass", "notProtocol": "UDPLite", "ipVersion": 6},
                {"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}, "notICMP": {"type": 3, "code": 1}},
            ]
        )
    ).ingress
    assert [one.action for one in found] == [Action.LOG, Action.PASS, Action.DENY]
    assert (found[0].match.protocol, found[1].match.not_protocol, found[1].match.version) == ("50", "UDPLite", 6)
    assert (found[2].match.icmp, found[2].match.not_icmp) == (ICMP(8), ICMP(3, 1))


def test_the_origin_of_a_rule() -> None:
    named = rule(metadata={"annotations": {"name": "from the shop"}})
    assert str(named.origin) == "CalicoNetworkPolicy shop/p, ingress[0] (from the shop)"
    assert named.origin.direction is Direction.INGRESS


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"action": "allow"}, r"spec\.ingress\[0\]\.action: allow is not known; take one of Allow, Deny, Pass, Log"),
        (
            {"source": {"selector": "a = 'b'"}},
            r"spec\.ingress\[0\]\.source\.selector: invalid selector \"a = 'b'\": exp",
        ),
        ({"source": {"nets": ["10.0.0.0/33"]}}, r"spec\.ingress\[0\]\.source\.nets: "),
        ({"protocol": "TCPP"}, r"spec\.ingress\[0\]\.protocol: TCPP is not known; take one of TCP, UDP"),
        ({"protocol": 0}, r"spec\.ingress\[0\]\.protocol: 0 is not between 1 and 255"),
        ({"destination": {"ports": [80]}}, r"spec\.ingress\[0\]\.destination\.ports: ports need the protocol"),
        ({"protocol": "UDP", "destination": {"ports": ["9:8"]}}, r".*ports: 9:8 is no port range"),
        ({"http": {"methods": ["GET"]}}, r"spec\.ingress\[0\]\.http: "),
        ({"destination": {"services": {"name": "db"}}}, r"spec\.ingress\[0\]\.destination\.services: "),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_cannot_be_translated(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPolicy, match=f"^{said}"):
        rule(**fields)


def test_network_sets_and_host_endpoints() -> None:
    assert NETWORK_SET.addresses == ("192.0.2.0/24",)
    with pytest.raises(InvalidPolicy, match=r"^spec\.nets\[1\]: "):
        endpoints.network_set({"kind": "NetworkSet", "metadata": {"name": "s"}, "spec": {"nets": ["::1", "x"]}})
    with pytest.raises(InvalidPolicy, match=r"^spec\.node: "):
        endpoints.host_endpoint({"metadata": {"name": "h"}, "spec": {"interfaceName": "eth0"}})
    with pytest.raises(InvalidPolicy, match="interfaceName or expectedIPs"):
        endpoints.host_endpoint({"metadata": {"name": "h"}, "spec": {"node": "n"}})
