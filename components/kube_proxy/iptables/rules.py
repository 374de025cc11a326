"""Services and endpoints -> iptables rules. Pure, sorted, deterministic; nothing is read or
written.

A Service's port becomes a Block (planner.py): its rules in the shared chains (KUBE-SERVICES,
KUBE-NODEPORTS, ...) and its own chains. A chain is written as a whole, and only when a rule of it
changed (KEP-3453).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from kubewire.components.kernel.nfnetlink import xtables as xt
from kubewire.components.kernel.nfnetlink.iptables import Append, TableChange, restore_input
from kubewire.components.kernel.nfnetlink.xtables import Rule
from kubewire.components.kube_proxy.iptables import chains
from kubewire.components.kube_proxy.iptables.service import Block, Context, build, local_match
from kubewire.components.kube_proxy.planner import Blocks, Chains, Step, by_chain, node_ip
from kubewire.components.kube_proxy.state import topology
from kubewire.components.kube_proxy.state.local_traffic import UNTOLD, LocalSource
from kubewire.components.kube_proxy.state.model import (
    IPV4,
    IPV6,
    Endpoints,
    Node,
    ServicePortName,
    Services,
)
from kubewire.components.kube_proxy.state.topology import Reachable

#: Above so many endpoints the comments in per-Service chains cost more memory than they are worth
#: (upstream).
LARGE_CLUSTER_ENDPOINTS = 1000


@dataclass(frozen=True)
class Config:
    """What the configuration and the node's family decide."""

    family: str = IPV4
    local_source: LocalSource = UNTOLD
    masquerade_all: bool = False
    masquerade_bit: int = 14
    random_fully: bool = True
    localhost_node_ports: bool = True
    conntrack_tcp_be_liberal: bool = False
    #: None: every local address; else the node's addresses in --nodeport-addresses.
    node_port_ips: tuple[str, ...] | None = None

    @property
    def mark(self) -> int:
        return 1 << self.masquerade_bit


_NOTHING = Block((), (), (), ())


@dataclass(frozen=True)
class Change:
    """From one state to the next. It is compared when it is asked for: writing everything needs no
    comparison."""

    steps: Sequence[Step[Block]]
    before: Config
    after: Config

    @cached_property
    def own(self) -> Chains[Rule]:
        """Chains of single Services."""
        found = Chains[Rule]()
        for _, before, after in self.steps:
            found.compare(by_chain((before or _NOTHING).own), by_chain((after or _NOTHING).own))
        return found

    @property
    def stale(self) -> frozenset[str]:
        return frozenset(self.own.stale)

    @cached_property
    def shared(self) -> dict[str, frozenset[str]]:
        """Table -> chains that all Services share and that differ; empty when none does."""
        found = {table: self._shared(table) for table in chains.BASE_CHAINS}
        return {table: names for table, names in found.items() if names}

    def _shared(self, table: str) -> frozenset[str]:
        found = Chains[Rule]()
        for _, before, after in self.steps:
            old, new = (before or _NOTHING).shared(table), (after or _NOTHING).shared(table)
            found.compare(by_chain(old), by_chain(new))
        if self.before != self.after:
            old, new = (
                (*first, *last)
                for first, last in (_fixed(self.before)[table], _fixed(self.after)[table])
            )
            found.compare(by_chain(old), by_chain(new))
        return found.names


class Plan:
    """The desired state of one family; update() brings it up to date."""

    def __init__(self) -> None:
        self.blocks: Blocks[Block, Reachable, Context] = Blocks(topology.choose, build)
        self._config = Config()
        #: Endpoints of each Service port, chosen or not, and of all of them.
        self._sizes: dict[ServicePortName, int] = {}
        self._endpoints = 0
        #: Rules of all blocks.
        self._rules = dict.fromkeys(chains.BASE_CHAINS, 0)

    def update(
        self,
        services: Services,
        endpoints: Endpoints,
        node: Node,
        config: Config,
        changed: Collection[ServicePortName] | None = None,
    ) -> Change:
        """changed are the names that may differ from the call before, None any."""
        self._count_endpoints(services, endpoints, changed)
        context = Context(
            node_ip=node_ip(node, config.family),
            local=local_match(config.local_source),
            outside=local_match(config.local_source, negated=True),
            masquerade_all=config.masquerade_all,
            comments=self._endpoints <= LARGE_CLUSTER_ENDPOINTS,
        )
        change = Change(
            self.blocks.update(services, endpoints, node, context, changed), self._config, config
        )
        self._config = config
        for _, before, after in change.steps:
            old, new = before or _NOTHING, after or _NOTHING
            self._rules["filter"] += len(new.filter) - len(old.filter)
            self._rules["nat"] += len(new.nat) + len(new.own) - len(old.nat) - len(old.own)
        return change

    def _count_endpoints(
        self, services: Services, endpoints: Endpoints, changed: Collection[ServicePortName] | None
    ) -> None:
        for name in changed if changed is not None else {*services, *self._sizes}:
            size = len(endpoints.get(name, ())) if name in services else 0
            self._endpoints += size - self._sizes.pop(name, 0)
            if size:
                self._sizes[name] = size

    @property
    def service_chains(self) -> frozenset[str]:
        return frozenset(chain for block in self.blocks.values() for chain in block.chains)

    def totals(self) -> dict[str, int]:
        """Rules per table when everything is written."""
        fixed = _fixed(self._config)
        return {table: count + sum(map(len, fixed[table])) for table, count in self._rules.items()}

    def everything(
        self,
        stale: Iterable[str] = (),
        jumps: Collection[chains.Jump] = (),
        canaries: Collection[str] = (),
    ) -> list[TableChange]:
        """stale: chains to remove; jumps: rules to put at the heads of built-in chains; canaries:
        tables whose canary chain is to be made."""
        blocks, stale = [*self.blocks.values()], sorted(stale)
        own_chains = [chain for block in blocks for chain in block.chains]
        own = [append for block in blocks for append in block.own]
        canary = {table: [chains.CANARY] * (table in canaries) for table in chains.CANARY_TABLES}
        guarded = self._config.family == IPV4 and self._config.localhost_node_ports
        filters = [
            *chains.BASE_CHAINS["filter"],
            *[chains.KUBELET_FIREWALL] * guarded,
            *canary["filter"],
        ]
        nats = [*chains.BASE_CHAINS["nat"], *canary["nat"], *own_chains, *stale]
        return [
            TableChange("mangle", canary["mangle"]),
            TableChange(
                "filter", filters, chains.heads("filter", jumps), self._shared("filter", blocks)
            ),
            TableChange(
                "nat", nats, chains.heads("nat", jumps), self._shared("nat", blocks, own), stale
            ),
        ]

    def difference(self, change: Change) -> list[TableChange]:
        """What leads here from the plan before."""
        shared, stale = change.shared, sorted(change.stale)
        blocks = [*self.blocks.values()] if shared else []
        own = change.own.added | change.own.rewritten
        found = {
            table: TableChange(
                table,
                sorted(names),
                rules=[item for item in self._shared(table, blocks) if item.chain in names],
            )
            for table, names in shared.items()
        }
        nat = found.pop("nat", TableChange("nat"))
        rules = [
            *nat.rules,
            *(Append(chain, rule) for chain, of_it in own.items() for rule in of_it),
        ]
        return [
            *found.values(),
            TableChange("nat", [*nat.chains, *own, *stale], rules=rules, deleted=stale),
        ]

    def _shared(
        self, table: str, blocks: Iterable[Block], own: Iterable[Append] = ()
    ) -> list[Append]:
        first, last = _fixed(self._config)[table]
        return [
            *first,
            *(append for block in blocks for append in block.shared(table)),
            *own,
            *last,
        ]


def render(services: Services, endpoints: Endpoints, node: Node, config: Config) -> str:
    """The whole desired state as text, for golden files and readers."""
    plan = Plan()
    plan.update(services, endpoints, node, config)
    return restore_input(plan.everything())


def _fixed(config: Config) -> dict[str, tuple[list[Append], list[Append]]]:
    """Table -> rules of shared chains that stand before those of Services, and those that stand
    after them."""
    firewall = [_BLOCK_LOCALNET] if config.family == IPV4 and config.localhost_node_ports else []
    return {
        "filter": (firewall, _forward_rules(config)),
        "nat": (
            masquerade_rules(config.mark, random_fully=config.random_fully),
            _node_port_jumps(config),
        ),
    }


# route_localnet makes 127.0.0.0/8 reachable from the link; only translated packets may use that
# (https://github.com/kubernetes/kubernetes/issues/90259). The kubelet writes the same rule.
_BLOCK_LOCALNET = Append(
    chains.KUBELET_FIREWALL,
    Rule(
        (
            xt.Comment("block incoming localnet connections"),
            xt.Destination("127.0.0.0/8"),
            xt.Source("127.0.0.0/8", negated=True),
            xt.ConnectionState(("RELATED", "ESTABLISHED", "DNAT"), negated=True),
        ),
        xt.DROP,
    ),
)


def masquerade_rules(mark: int, *, random_fully: bool = True) -> list[Append]:
    """What is marked gets the address of the interface it leaves by."""
    snat, post = xt.Comment("kubernetes service traffic requiring SNAT"), chains.POSTROUTING
    return [
        Append(post, Rule((xt.Mark(mark, mark, negated=True),), xt.RETURN)),
        # Clear the mark: the packet may pass POSTROUTING again (encapsulated).
        Append(post, Rule((), xt.ChangeMark("xor", mark))),
        Append(post, Rule((snat,), xt.Masquerade(random_fully))),
        Append(chains.MARK_MASQ, Rule((), xt.ChangeMark("or", mark))),
    ]


def forward_rules(mark: int) -> list[Append]:
    """What was translated, and the answers to it, may pass."""
    known = xt.ConnectionState(("RELATED", "ESTABLISHED"))
    return [
        Append(
            chains.FORWARD,
            Rule((xt.Comment("kubernetes forwarding rules"), xt.Mark(mark, mark)), xt.ACCEPT),
        ),
        Append(
            chains.FORWARD,
            Rule((xt.Comment("kubernetes forwarding conntrack rule"), known), xt.ACCEPT),
        ),
    ]


def _forward_rules(config: Config) -> list[Append]:
    # An INVALID packet would leave untranslated and reset the connection (kubernetes issue 74839).
    invalid = Append(chains.FORWARD, Rule((xt.ConnectionState(("INVALID",)),), xt.DROP))
    return [*([] if config.conntrack_tcp_be_liberal else [invalid]), *forward_rules(config.mark)]


def _node_port_jumps(config: Config) -> list[Append]:
    comment = xt.Comment(
        "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    )
    to_node_ports = xt.Jump(chains.NODEPORTS)
    if config.node_port_ips is not None:
        destinations = [xt.Destination(ip) for ip in sorted(config.node_port_ips)]
        return [Append(chains.SERVICES, Rule((comment, ip), to_node_ports)) for ip in destinations]
    barred: tuple[xt.Match, ...] = ()
    if config.family == IPV6:
        barred = (xt.Destination("::1/128", negated=True),)
    elif not config.localhost_node_ports:
        barred = (xt.Destination("127.0.0.0/8", negated=True),)
    return [Append(chains.SERVICES, Rule((comment, xt.ToThisHost(), *barred), to_node_ports))]
