"""After any sequence of updates the compiler has the state that a fresh one has, and what it told
its readers leads to this state."""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.compiler.kinds import key_of
from kubewire.components.policy.model import Applied, Changes, ObjectKey, Policy, State
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
    st.builds(
        network_policy,
        NAMES,
        SPACES,
        podSelector=SELECTORS,
        ingress=_rules("from"),
        egress=_rules("to"),
        policyTypes=st.sampled_from([None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    ),
)
#: Before the updates, so that these meet what they can change.
BASE = (
    *(pod(n, x, addresses=["10.0.0.1"], labels={"app": "1"}, serviceAccountName="a") for n in "ab" for x in "xy"),
    network_policy("a", "x", podSelector={"matchLabels": {"app": "1"}}, ingress=[{"from": [{"podSelector": {}}]}]),
    network_policy("b", "x", egress=[{"ports": [{"port": "web"}]}]),
)
#: True: apply; False: delete what has its key.
UPDATES = st.lists(st.tuples(OBJECTS, st.sampled_from([True, True, False]), st.booleans()), min_size=15, max_size=40)


def fresh(objects: dict[ObjectKey, Object]) -> Compiler:
    made = Compiler()
    for obj in objects.values():
        made.apply(obj)
    return made


class Reader:
    """Knows a state only from the changes that it was told, as an engine does."""

    def __init__(self) -> None:
        self.policies: dict[ObjectKey, Policy] = {}
        self.applied: dict[ObjectKey, tuple[tuple[str, ...], Applied]] = {}
        self.members: dict[str, frozenset[str]] = {}

    def told(self, state: State, changes: Changes) -> None:
        for key in changes.policies:
            self.policies.pop(key, None)
            if key in state.policies:
                self.policies[key] = state.policies[key]
        for key in changes.endpoints:
            self.applied.pop(key, None)
            if key in state.endpoints:
                self.applied[key] = (state.endpoints[key].addresses, state.applied[key])
        for set_id in changes.old_sets:
            del self.members[set_id]
        for set_id in changes.new_sets:
            assert set_id not in self.members
            self.members[set_id] = state.members[set_id]
        for set_id, (added, removed) in changes.sets.items():
            assert not added & self.members[set_id]
            assert removed <= self.members[set_id]
            self.members[set_id] = (self.members[set_id] | added) - removed


def check(compiler: Compiler, objects: dict[ObjectKey, Object], reader: Reader) -> None:
    state, expected = compiler.state, fresh(objects).state
    assert state.tiers == expected.tiers
    assert dict(state.policies) == dict(expected.policies)
    assert dict(state.sets) == dict(expected.sets)
    assert dict(state.members) == dict(expected.members)
    assert dict(state.endpoints) == dict(expected.endpoints)
    assert dict(state.applied) == dict(expected.applied)
    assert reader.policies == dict(state.policies)
    assert reader.members == dict(state.members)
    assert reader.applied == {key: (state.endpoints[key].addresses, one) for key, one in state.applied.items()}


def run(updates: list[tuple[Object, bool, bool]]) -> None:
    compiler, objects, reader = Compiler(), dict[ObjectKey, Object](), Reader()
    for obj, put, read in [*((obj, True, False) for obj in BASE), *updates]:
        key = key_of(obj)
        assert key is not None
        if put:
            objects[key] = obj
            compiler.apply(obj)
        else:
            objects.pop(key, None)
            compiler.delete(key)
        if read:
            reader.told(compiler.state, compiler.changes())
    reader.told(compiler.state, compiler.changes())
    check(compiler, objects, reader)
    for key in list(objects):
        compiler.delete(key)
    assert_empty(compiler)


def assert_empty(compiler: Compiler) -> None:
    """Nothing is left in a compiler without objects, nor in its indexes."""
    state = compiler.state
    assert not (state.policies or state.sets or state.members or state.endpoints or state.applied)
    for name, index in vars(compiler._selection).items():
        assert not index, name
    for name in ("_namespace_labels", "_account_labels", "_subjects", "_translations", "_set_groups", "_set_users"):
        assert not getattr(compiler, name), name


@settings(max_examples=150, deadline=None, phases=[Phase.reuse, Phase.generate, Phase.shrink])
@given(UPDATES)
def test_updates_lead_to_the_state_of_a_fresh_compiler(updates: list[tuple[Object, bool, bool]]) -> None:
    run(updates)
