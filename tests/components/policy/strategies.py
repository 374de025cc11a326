"""Random objects for property tests of policies: few names, labels and addresses, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.components.policy.objects import Object, namespace, network_policy, pod
from tests.components.policy.tables.cluster import cluster, inwards, outwards

NAMES, SPACES = st.sampled_from("ab"), st.sampled_from("xy")
KEYS, VALUES = st.sampled_from(["app", "tier"]), st.sampled_from("12")
LABELS = st.dictionaries(KEYS, VALUES, min_size=1)
#: Few addresses, so that pods often share one.
ADDRESSES = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=2)
EXPRESSIONS = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        KEYS,
        st.sampled_from(["In", "NotIn"]),
        st.lists(VALUES, min_size=1, max_size=2),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator}, KEYS, st.sampled_from(["Exists", "DoesNotExist"])
    ),
)
SELECTORS = st.one_of(
    st.just({}),
    st.builds(lambda labels: {"matchLabels": labels}, LABELS),
    st.builds(lambda expressions: {"matchExpressions": expressions}, st.lists(EXPRESSIONS, max_size=2)),
)
PORTS = st.lists(
    st.sampled_from([{"port": 80}, {"port": "web"}, {"port": "dns", "protocol": "UDP"}, {"port": 80, "endPort": 90}]),
    max_size=2,
)
BLOCKS = st.sampled_from([{"cidr": "10.0.0.0/8", "except": ["10.0.0.1/32"]}, {"cidr": "fd00::/64"}])
PEERS = st.lists(
    st.one_of(
        st.builds(lambda block: {"ipBlock": block}, BLOCKS),
        st.builds(lambda pods: {"podSelector": pods}, SELECTORS),
        st.builds(lambda spaces: {"namespaceSelector": spaces}, SELECTORS),
        st.builds(
            lambda pods, spaces: {"podSelector": pods, "namespaceSelector": spaces},
            SELECTORS,
            SELECTORS,
        ),
    ),
    max_size=2,
)


def _rules(field: str) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.fixed_dictionaries({field: PEERS, "ports": PORTS}), max_size=2)


NETWORK_POLICIES = st.builds(
    network_policy,
    NAMES,
    SPACES,
    podSelector=SELECTORS,
    ingress=_rules("from"),
    egress=_rules("to"),
    policyTypes=st.sampled_from([None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
)
POD_PORTS = st.lists(
    st.sampled_from([("web", "TCP", 80), ("dns", "UDP", 53), ("", "TCP", 81)]), max_size=2, unique=True
)


def account(name: str, where: str, labels: dict[str, str]) -> Object:
    metadata = {"name": name, "namespace": where, "labels": labels}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def calico(kind: str, name: str, where: str, **spec: Any) -> Object:
    metadata = {"name": name, **({"namespace": where} if where else {})}
    if kind.endswith("NetworkSet"):
        metadata["labels"] = spec.pop("labels")
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


TEXTS = st.sampled_from(["all()", "app == '1'", "has(tier)", "app != '2'", "tier in {'1'}"])
CALICO = st.one_of(
    st.builds(
        lambda name, selector, peer, accounts, tier, order: calico(
            "GlobalNetworkPolicy",
            f"{tier}.{name}",
            "",
            tier=tier,
            order=order,
            selector=selector,
            types=["Ingress"],
            ingress=[
                {"action": "Deny", "source": {"selector": peer, "serviceAccounts": {"selector": accounts}}},
                {"action": "Allow", "source": {"selector": peer, "namespaceSelector": accounts}},
            ],
        ),
        NAMES,
        TEXTS,
        TEXTS,
        TEXTS,
        st.sampled_from(["default", "first"]),
        st.integers(1, 3),
    ),
    st.builds(
        lambda name, where, labels, nets: calico(
            "NetworkSet" if where else "GlobalNetworkSet", name, where, labels=labels, nets=nets
        ),
        NAMES,
        st.sampled_from(["", "x", "y"]),
        LABELS,
        st.lists(st.sampled_from(["10.0.0.1/32", "10.0.0.0/8"]), max_size=2),
    ),
    st.builds(lambda order: calico("Tier", "first", "", order=order), st.sampled_from([5, 2_000_000])),
)
SUBJECTS = st.one_of(
    st.builds(lambda spaces: {"namespaces": spaces}, SELECTORS),
    st.builds(lambda spaces, pods: {"pods": {"namespaceSelector": spaces, "podSelector": pods}}, SELECTORS, SELECTORS),
)
CLUSTER = st.builds(
    lambda name, tier, priority, subject, action, peer, nodes: cluster(
        name,
        tier,
        priority,
        subject,
        ingress=[inwards(action, peer, protocols=[{"destinationNamedPort": "web"}])],
        egress=[outwards(action, peer, {"nodes": nodes})],
    ),
    NAMES,
    st.sampled_from(["Admin", "Baseline"]),
    st.integers(1, 3),
    SUBJECTS,
    st.sampled_from(["Accept", "Deny", "Pass"]),
    SUBJECTS,
    SELECTORS,
)


def node(name: str, labels: dict[str, str], addresses: list[str]) -> Object:
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": listed}}


OBJECTS: st.SearchStrategy[Object] = st.one_of(
    CALICO,
    CLUSTER,
    st.builds(node, NAMES, LABELS, ADDRESSES),
    st.builds(account, NAMES, SPACES, LABELS),
    st.builds(
        pod,
        NAMES,
        SPACES,
        addresses=ADDRESSES,
        labels=LABELS,
        ports=POD_PORTS,
        phase=st.sampled_from(["Running"] * 5 + ["Succeeded"]),
        hostNetwork=st.sampled_from([False] * 5 + [True]),
        serviceAccountName=NAMES,
    ),
    st.builds(namespace, SPACES, LABELS),
    NETWORK_POLICIES,
)
