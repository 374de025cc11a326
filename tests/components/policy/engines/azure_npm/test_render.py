"""What Azure NPM writes for a State, and how selectors become sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubewire.components.kernel.iptables import transaction
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.azure_npm import names, render
from kubewire.components.policy.model import Definition, ObjectKey
from kubewire.components.policy.selectors import from_label_selector
from tests.components.policy import objects

POLICY = ObjectKey("NetworkPolicy", "shop", "p")


def selector(**terms: Any) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, **term} for key, term in terms.items()]}


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (Definition(namespace="shop"), ["ns-shop"]),
        (Definition(from_label_selector({"matchLabels": {"a": "1"}}), "shop"), ["podlabel-a:1 ns-shop"]),
        (
            Definition(from_label_selector(selector(a={"operator": "In", "values": ["1"]})), "shop"),
            ["podlabel-a:1 ns-shop"],
        ),
        (
            Definition(from_label_selector(selector(a={"operator": "NotIn", "values": ["2", "1"]})), "shop"),
            ["!nestedlabel-shop/p:a:1:2 ns-shop"],
        ),
        (Definition(from_label_selector(selector(a={"operator": "Exists"})), "shop"), ["podlabel-a ns-shop"]),
        (Definition(from_label_selector(selector(a={"operator": "DoesNotExist"})), "shop"), ["!podlabel-a ns-shop"]),
        (Definition(namespaces=from_label_selector({})), ["nslabel-all-namespaces"]),
        (Definition(namespaces=from_label_selector({"matchLabels": {"t": "x"}})), ["nslabel-t:x"]),
        (
            Definition(namespaces=from_label_selector(selector(t={"operator": "In", "values": ["x", "y"]}))),
            ["nslabel-t:x", "nslabel-t:y"],
        ),
        (
            Definition(namespaces=from_label_selector(selector(t={"operator": "NotIn", "values": ["x", "y"]}))),
            ["!nslabel-t:x !nslabel-t:y"],
        ),
        (
            Definition(from_label_selector({"matchLabels": {"a": "1"}}), namespaces=from_label_selector({})),
            ["nslabel-all-namespaces podlabel-a:1"],
        ),
    ],
)
def test_a_selector_is_matched_by_sets(definition: Definition, expected: list[str]) -> None:
    assert [" ".join(map(str, found)) for found in names.matches_of(definition, POLICY)] == expected


def test_names_in_the_kernel_fit() -> None:
    assert len(names.set_name("podlabel-" + "a" * 300)) <= 31
    assert len(names.chain_name(names.INGRESS, POLICY)) <= 28


def test_the_rules_and_sets_are_those_of_the_golden_file(golden: Callable[[str, str], None]) -> None:
    compiler = Compiler()
    for obj in (
        objects.namespace("shop"),
        objects.namespace("ops", {"team": "ops"}),
        objects.pod("db", "shop", addresses=["10.1.0.5"], labels={"app": "db"}, ports=[("pg", "TCP", 5432)]),
        objects.pod("web", "shop", addresses=["10.1.0.6"], labels={"app": "web"}),
        objects.pod("probe", "ops", addresses=["10.1.0.7"]),
        objects.network_policy("open", "ops", ingress=[{}]),
        objects.network_policy(
            "db",
            "shop",
            podSelector={"matchLabels": {"app": "db"}},
            policyTypes=["Ingress", "Egress"],
            ingress=[
                {
                    "from": [
                        {"podSelector": {"matchLabels": {"app": "web"}}},
                        {"namespaceSelector": {"matchLabels": {"team": "ops"}}},
                    ],
                    "ports": [{"port": "pg"}, {"port": 8000, "endPort": 8010}],
                }
            ],
            egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24"]}}]}],
        ),
        objects.network_policy("six", "shop", ingress=[{"from": [{"ipBlock": {"cidr": "fd00::/8"}}]}]),
    ):
        compiler.apply(obj)
    found = render.render(compiler.state)
    sets = [f"{one.name} {one.kind}\n{''.join(f'  {member}{chr(10)}' for member in one.members)}" for one in found.sets]
    golden("azure_npm/policies.txt", "".join(sets) + transaction(found.ruleset, {}))
    assert found.rejected == {ObjectKey("NetworkPolicy", "shop", "six"): "unsupported IP address"}
