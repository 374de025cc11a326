"""After any sequence of updates the compiler has the state that a fresh one has, and what it told
its readers leads to this state."""

from __future__ import annotations

import itertools

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.compiler.kinds import key_of
from kubewire.components.policy.evaluator import Evaluator, Flow
from kubewire.components.policy.model import Applied, Changes, ObjectKey, Policy, State
from tests.components.policy.objects import Object, network_policy, pod
from tests.components.policy.strategies import OBJECTS

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
        self.evaluator = Evaluator(Compiler().state)

    def told(self, state: State, changes: Changes) -> None:
        self.evaluator.update(state, changes)
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
    again = Evaluator(state)
    for source, destination in itertools.permutations(("10.0.0.1", "10.0.0.2", "192.0.2.1"), 2):
        flow = Flow(source, destination, "TCP", 80)
        assert reader.evaluator.verdict(flow) == again.verdict(flow)
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


@settings(max_examples=100, deadline=None, phases=[Phase.reuse, Phase.generate, Phase.shrink])
@given(UPDATES)
def test_updates_lead_to_the_state_of_a_fresh_compiler(updates: list[tuple[Object, bool, bool]]) -> None:
    run(updates)
