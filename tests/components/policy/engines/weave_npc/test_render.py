"""What Weave NPC writes for a State, and what it says of blocked packets."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from kubewire.components.kernel.iptables import transaction
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.weave_npc import names, render
from kubewire.components.policy.engines.weave_npc.blocked import blocked
from kubewire.components.policy.engines.weave_npc.main import parse
from kubewire.components.policy.model import ObjectKey
from kubewire.components.policy.selectors import from_label_selector
from tests.components.policy import objects

POLICIES = [
    objects.network_policy("deny-all", "shop", policyTypes=["Ingress", "Egress"]),
    objects.network_policy(
        "db",
        "shop",
        podSelector={"matchLabels": {"app": "db"}},
        policyTypes=["Ingress", "Egress"],
        ingress=[
            {
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]}]}},
                    {"namespaceSelector": {"matchLabels": {"team": "ops"}}},
                ],
                "ports": [{"port": 5432}, {"protocol": "UDP", "port": 53, "endPort": 55}],
            }
        ],
        egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.9/32"]}}]}],
    ),
    objects.network_policy("named", "shop", ingress=[{"ports": [{"port": "http"}]}]),
]


def rendered(*policies: objects.Object) -> render.Rendered:
    compiler = Compiler()
    pods = [
        objects.namespace("shop"),
        objects.namespace("ops", {"team": "ops"}),
        objects.pod("db", "shop", addresses=["10.32.0.5", "fd00::5"], labels={"app": "db"}),
        objects.pod("web", "shop", addresses=["10.32.0.6"], labels={"app": "web", "tier": "a"}),
        objects.pod("probe", "ops", addresses=["10.32.0.7"]),
        objects.pod("node", "ops", addresses=["172.18.0.3"], hostNetwork=True),
        objects.pod("six", "ops", addresses=["fd00::6"]),
    ]
    for obj in (*pods, *policies):
        compiler.apply(obj)
    return render.render(compiler.state, render.Options())


def shown(found: render.Rendered) -> str:
    sets = [f"{one.name} {one.kind}\n{''.join(f'  {member}{chr(10)}' for member in one.members)}" for one in found.sets]
    return "".join(sets) + transaction(found.ruleset, {})


@pytest.mark.parametrize(("name", "policies"), [("open", []), ("policies", POLICIES)], ids=["open", "policies"])
def test_the_rules_and_sets_are_those_of_the_golden_file(
    name: str, policies: list[objects.Object], golden: Callable[[str, str], None]
) -> None:
    golden(f"weave_npc/{name}.txt", shown(rendered(*policies)))


def test_a_policy_with_a_named_port_is_rejected_with_upstreams_words() -> None:
    (said,) = rendered(*POLICIES).rejected.items()
    assert said[0] == ObjectKey("NetworkPolicy", "shop", "named")
    assert said[1].startswith("named ports in network policies is not supported yet. Rejecting network policy: named")


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["y", "x"]}]}, "a notin (x,y)"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}], "matchLabels": {"b": "1"}}, "!a,b=1"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "a"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"]}]}, "a in (x)"),
    ],
)
def test_selectors_are_written_as_kubectl_does(selector: dict[str, object], text: str) -> None:
    assert names.selector_text(from_label_selector(selector)) == text


def test_names_of_sets_are_those_of_upstream_clusters() -> None:
    """Seen in published dumps of clusters with Weave Net."""
    assert names.set_name("ingress-default-allow:kube-system") == "weave-P.B|!ZhkAr5q=XZ?3}tMBA+0"
    assert names.set_name("ingress-default-allow:default") == "weave-;rGqyMIl1HN^cfDki~Z$3]6!N"


def packet(protocol: int, transport: bytes) -> bytes:
    addresses = bytes([10, 32, 0, 6, 10, 32, 0, 5])
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(transport), 0, 0, 64, protocol, 0) + addresses + transport


def segment(flags: int) -> bytes:
    return struct.pack(">HHIIBBHHH", 1025, 5432, 0, 0, 0x50, flags, 0, 0, 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packet(6, segment(0x02)), "TCP connection from 10.32.0.6:1025 to 10.32.0.5:5432 blocked by Weave NPC."),
        (
            packet(17, struct.pack(">HHHH", 1025, 53, 8, 0)),
            "UDP connection from 10.32.0.6:1025 to 10.32.0.5:53 blocked by Weave NPC.",
        ),
        (packet(6, segment(0x12)), "None"),
        (packet(1, b"\x08\x00"), "None"),
        (packet(6, b"\x00"), "None"),
        (b"\x60" + bytes(60), "None"),
    ],
    ids=["SYN", "UDP", "SYN and ACK", "ICMP", "cut", "IPv6"],
)
def test_what_is_said_of_a_blocked_packet(data: bytes, said: str) -> None:
    assert str(blocked(data)) == said


def test_flags() -> None:
    given = ["--kubeconfig=k", "--node-name=n"]
    assert parse(given).render == render.Options()
    options = parse([*given, "--allow-mcast=false", "--bridge-port-name=a", "--bridge-port-name=b"])
    assert (options.render.allow_multicast, options.render.bridge_ports) == (False, ("a", "b"))
    with pytest.raises(SystemExit):
        parse([*given, "--allow-mcast=maybe"])
