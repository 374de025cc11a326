"""From what was written last to what is wanted, at a cost that depends on the change alone. Pure.

All modes plan in two steps. Each port of a Service becomes a block, which Blocks keeps as long as
the port and the endpoints that count for it are the same. Where rules stand in chains, Chains says
which chains differ, whether they are a Service's own or shared by all. What a mode has besides
(elements, virtual servers) it compares itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from kubewire.components.kube_proxy.state.model import (
    IPV6,
    Endpoint,
    Endpoints,
    Node,
    ServicePort,
    ServicePortName,
    Services,
)

BlockT = TypeVar("BlockT")
ContextT = TypeVar("ContextT")
ChosenT = TypeVar("ChosenT")
RuleT = TypeVar("RuleT")


class Step(NamedTuple, Generic[BlockT]):
    """A block that differs from the one before; None: there is none."""

    name: ServicePortName
    before: BlockT | None
    after: BlockT | None


class Blocks(Mapping[ServicePortName, BlockT], Generic[BlockT, ChosenT, ContextT]):
    """What each Service port needs, in the order of names. choose picks what counts of a port's
    endpoints, build makes the block from it; the context is what all blocks depend on."""

    def __init__(
        self,
        choose: Callable[[tuple[Endpoint, ...], ServicePort, Node], ChosenT],
        build: Callable[[ServicePortName, ServicePort, ChosenT, ContextT], BlockT],
    ) -> None:
        self._choose, self._build = choose, build
        self._common: tuple[Node, ContextT] | None = None
        self._keys: dict[ServicePortName, tuple[ServicePort, ChosenT]] = {}
        self._blocks: dict[ServicePortName, BlockT] = {}

    def __getitem__(self, name: ServicePortName) -> BlockT:
        return self._blocks[name]

    def __iter__(self) -> Iterator[ServicePortName]:
        return iter(sorted(self._blocks))

    def __len__(self) -> int:
        return len(self._blocks)

    def update(
        self,
        services: Services,
        endpoints: Endpoints,
        node: Node,
        context: ContextT,
        changed: Collection[ServicePortName] | None,
    ) -> list[Step[BlockT]]:
        """What differs from the call before, in the order of names. changed: those that may differ,
        None for any."""
        if (node, context) != self._common:
            self._common, self._keys, changed = (node, context), {}, None
        steps = []
        for name in sorted(changed if changed is not None else {*services, *self._blocks}):
            before = self._blocks.get(name)
            after = self._block(name, services.get(name), endpoints.get(name, ()), node, context)
            if after is not before:
                steps.append(Step(name, before, after))
        return steps

    def _block(
        self,
        name: ServicePortName,
        service: ServicePort | None,
        endpoints: tuple[Endpoint, ...],
        node: Node,
        context: ContextT,
    ) -> BlockT | None:
        before = self._blocks.get(name)
        if service is None:
            self._keys.pop(name, None)
            self._blocks.pop(name, None)
            return None
        # The chosen ones, not all: a change of hints or of a condition that changes nothing costs
        # nothing.
        key = (service, self._choose(endpoints, service, node))
        if self._keys.get(name) != key:
            self._keys[name] = key
            after = self._build(name, *key, context)
            if after != before:
                self._blocks[name] = after
        return self._blocks[name]


@dataclass
class Chains(Generic[RuleT]):
    """Chains that differ, with their rules: those that are new, those that are there with other
    rules, and the names of those that nobody needs any more."""

    added: dict[str, tuple[RuleT, ...]] = field(default_factory=dict)
    rewritten: dict[str, tuple[RuleT, ...]] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)

    def compare(
        self,
        before: Mapping[str, tuple[RuleT, ...]],
        after: Mapping[str, tuple[RuleT, ...]],
        *,
        all_anew: bool = False,
    ) -> None:
        """all_anew: chains are written even when their rules are the same."""
        for name, rules in after.items():
            if name not in before:
                self.added[name] = rules
            elif all_anew or before[name] != rules:
                self.rewritten[name] = rules
        self.stale += [name for name in before if name not in after]

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*self.added, *self.rewritten, *self.stale))


def by_chain(
    rules: Iterable[tuple[str, RuleT]], chains: Iterable[str] = ()
) -> dict[str, tuple[RuleT, ...]]:
    """Of (chain, rule) pairs. chains: which are there even when they have no rule."""
    found: dict[str, list[RuleT]] = {chain: [] for chain in chains}
    for chain, rule in rules:
        found.setdefault(chain, []).append(rule)
    return {chain: tuple(of_it) for chain, of_it in found.items()}


def node_ip(node: Node, family: str) -> str:
    """The node's own address of a family, "" when it has none."""
    return next((ip for ip in node.ips if (":" in ip) == (family == IPV6)), "")
