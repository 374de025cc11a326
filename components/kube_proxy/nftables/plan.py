"""Services and endpoints -> statements. Pure, deterministic; nothing is read or written.

A Plan knows the blocks (planner.py) that the kernel has, so that a change becomes the statements
that lead from the one to the other (upstream's partial sync).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from kubewire.components.kube_proxy.nftables import chains
from kubewire.components.kube_proxy.nftables.elements import Elements
from kubewire.components.kube_proxy.nftables.rules import Config, setup
from kubewire.components.kube_proxy.nftables.service import Block, Context, build
from kubewire.components.kube_proxy.nftables.statements import (
    AddAffinitySet,
    AddChain,
    AddElement,
    AddRule,
    DeleteElement,
    DeleteSet,
    Element,
    FlushChain,
    Rule,
    Statement,
    text,
)
from kubewire.components.kube_proxy.planner import Blocks, Chains, node_ip
from kubewire.components.kube_proxy.state import topology
from kubewire.components.kube_proxy.state.model import Endpoints, Node, ServicePortName, Services
from kubewire.components.kube_proxy.state.topology import Reachable

_NOTHING = Block({}, (), ())


@dataclass(frozen=True)
class Present:
    """What a table of an earlier process has: chains of Services, affinity sets with their
    timeouts."""

    chains: frozenset[str] = frozenset()
    sets: tuple[AddAffinitySet, ...] = ()


@dataclass
class Change(Chains[Rule]):
    """From what is there to what shall be. Deleted sets go before the added ones come, for not
    every kernel changes the timeout of a set that is there."""

    deleted_sets: list[str] = field(default_factory=list)
    added_sets: list[AddAffinitySet] = field(default_factory=list)
    deleted_elements: list[Element] = field(default_factory=list)
    added_elements: list[Element] = field(default_factory=list)

    def statements(self) -> Iterator[Statement]:
        """In the order in which every name is known when it is used, and unused when it is deleted.
        Stale chains are only emptied: before 6.2 the kernel learns late that no element refers to a
        chain any more."""
        yield from (AddChain(name) for name in self.added)
        yield from (FlushChain(name) for name in (*self.rewritten, *self.stale))
        yield from (DeleteSet(name) for name in self.deleted_sets)
        yield from self.added_sets
        for name, rules in (*self.added.items(), *self.rewritten.items()):
            yield from (AddRule(name, rule) for rule in rules)
        yield from (DeleteElement(element) for element in self.deleted_elements)
        yield from (AddElement(element) for element in self.added_elements)


class Plan:
    """One family's table, as the statements given out so far have made it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._blocks: Blocks[Block, Reachable, Context] = Blocks(topology.choose, build)
        self._elements = Elements()

    def whole(
        self, services: Services, endpoints: Endpoints, node: Node, present: Present | None
    ) -> Change:
        """Everything, for a Plan that has given nothing out. present: the table that is there, None
        for none."""
        change = self.partial(services, endpoints, node)
        if present is not None:
            _take_over(change, present)
        return change

    def partial(
        self,
        services: Services,
        endpoints: Endpoints,
        node: Node,
        changed: Collection[ServicePortName] | None = None,
    ) -> Change:
        """The difference to what was given out before; changed are the names that may differ, None
        any."""
        config, change = self.config, Change()
        context = Context(node.name, node_ip(node, config.family), config.local_source, config.mark)
        for name, before, after in self._blocks.update(services, endpoints, node, context, changed):
            _compare(before or _NOTHING, after or _NOTHING, change)
            self._elements.replace(
                name, (before or _NOTHING).elements, (after or _NOTHING).elements
            )
        change.deleted_elements, change.added_elements = self._elements.difference()
        return change


def _compare(before: Block, after: Block, change: Change) -> None:
    """Rules refer to an affinity set by what it is, so they are written anew when one is made
    anew."""
    kept = {item.name for item in before.sets} & {item.name for item in after.sets}
    renewed = bool(kept) and any(
        item not in before.sets for item in after.sets if item.name in kept
    )
    change.compare(before.chains, after.chains, all_anew=renewed)
    change.deleted_sets += [item.name for item in before.sets if item not in after.sets]
    change.added_sets += [item for item in after.sets if item not in before.sets]


def _take_over(change: Change, present: Present) -> None:
    """A table of an earlier process: chains that are there are emptied, what no Service needs goes.
    Clients stay where the affinity sets send them."""
    there = {name: rules for name, rules in change.added.items() if name in present.chains}
    for name in there:
        del change.added[name]
    change.rewritten |= there
    change.stale += sorted(
        name for name in present.chains if name not in there and chains.is_service_chain(name)
    )
    wanted = {item.name: item for item in change.added_sets}
    change.deleted_sets += sorted(
        item.name for item in present.sets if wanted.get(item.name) != item
    )


def render(services: Services, endpoints: Endpoints, node: Node, config: Config) -> str:
    """The whole desired state as text, for golden files and readers."""
    change = Plan(config).whole(services, endpoints, node, None)
    return text([*setup(config), *change.statements()], config.ip)
