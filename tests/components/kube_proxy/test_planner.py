"""The planner that all modes share: which blocks are built, and which chains differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from kubewire.components.kube_proxy.planner import Blocks, Chains, Step, by_chain
from kubewire.components.kube_proxy.state.model import Endpoint, Node, ServicePort, ServicePortName

A, B, C = (ServicePortName("ns", name, "http") for name in "abc")
SERVICE, NODE = ServicePort("10.96.0.1", 80, "tcp"), Node("worker-1")
ONE, UNREADY = Endpoint("10.1.1.1", 80), Endpoint("10.1.1.2", 80, ready=False)


class Built:
    """Blocks whose builds are counted; a block is what chose its endpoints, and the context."""

    def __init__(self) -> None:
        self.names: list[ServicePortName] = []
        self.blocks: Blocks[tuple[tuple[Endpoint, ...], str], tuple[Endpoint, ...], str] = Blocks(_ready, self._build)
        self.services: dict[ServicePortName, ServicePort] = {}
        self.endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}

    def _build(
        self, name: ServicePortName, service: ServicePort, chosen: tuple[Endpoint, ...], context: str
    ) -> tuple[tuple[Endpoint, ...], str]:
        self.names.append(name)
        return chosen, context.lower()

    def update(
        self, changed: set[ServicePortName] | None = None, node: Node = NODE, context: str = "x"
    ) -> list[Step[tuple[tuple[Endpoint, ...], str]]]:
        self.names = []
        return self.blocks.update(self.services, self.endpoints, node, context, changed)


def _ready(endpoints: tuple[Endpoint, ...], service: ServicePort, node: Node) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in endpoints if endpoint.ready)


@pytest.fixture
def built() -> Built:
    found = Built()
    found.services, found.endpoints = {B: SERVICE, A: SERVICE}, {A: (ONE,)}
    found.update()
    return found


def test_steps_and_blocks_are_in_the_order_of_names(built: Built) -> None:
    built.services[C] = built.services[ServicePortName("ns", "aa", "http")] = SERVICE
    assert [step.name.name for step in built.update()] == ["aa", "c"]
    assert [name.name for name in built.blocks] == ["a", "aa", "b", "c"]


def test_only_what_is_said_to_have_changed_is_looked_at(built: Built) -> None:
    built.endpoints = {A: (), B: (ONE,)}
    assert built.update({B}) == [Step(B, ((), "x"), ((ONE,), "x"))]
    assert built.names == [B]
    assert built.update() == [Step(A, ((ONE,), "x"), ((), "x"))]


def test_an_endpoint_that_does_not_count_builds_nothing(built: Built) -> None:
    built.endpoints[A] = (ONE, UNREADY)
    assert built.update({A}) == []
    assert built.names == []


def test_a_service_that_goes_leaves_a_step_without_a_block(built: Built) -> None:
    del built.services[A]
    assert built.update() == [Step(A, ((ONE,), "x"), None)]
    assert built.update({A}) == []
    assert list(built.blocks) == [B]


@pytest.mark.parametrize("common", [{"node": replace(NODE, zone="z")}, {"context": "X"}], ids=["node", "context"])
def test_what_all_depend_on_builds_all_and_equal_blocks_are_kept(built: Built, common: Mapping[str, object]) -> None:
    before = dict(built.blocks)
    assert built.update(set(), **common) == []  # type: ignore[arg-type]
    assert built.names == [A, B]
    assert all(built.blocks[name] is block for name, block in before.items())


def test_chains_are_told_apart_by_their_rules() -> None:
    found = Chains[str]()
    found.compare({"same": ("a",), "other": ("a",), "gone": ()}, {"same": ("a",), "other": ("b",), "new": ()})
    assert (found.added, found.rewritten, found.stale) == ({"new": ()}, {"other": ("b",)}, ["gone"])
    assert found.names == {"new", "other", "gone"}


def test_all_chains_can_be_asked_for() -> None:
    found = Chains[str]()
    found.compare({"same": ("a",)}, {"same": ("a",)}, all_anew=True)
    assert found.rewritten == {"same": ("a",)}


def test_rules_of_a_chain_keep_their_order_and_empty_chains_are_there() -> None:
    pairs = [("b", "1"), ("a", "2"), ("b", "3")]
    assert by_chain(pairs, ["empty"]) == {"empty": (), "b": ("1", "3"), "a": ("2",)}
