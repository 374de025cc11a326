"""Services and endpoints -> iptables-restore text. Pure, sorted, deterministic; nothing is read or written.

A Service's port becomes a Block: its lines in the shared chains (KUBE-SERVICES, KUBE-NODEPORTS, ...) and
its own chains. Shared chains are written whole when a line of them changed, own chains only when they
changed (KEP-3453), so a Block is kept as long as its ServicePort and endpoints are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kubewire.components.kube_proxy.iptables import chains
from kubewire.components.kube_proxy.iptables.service import Block, Context, build, local_match
from kubewire.components.kube_proxy.state import topology
from kubewire.components.kube_proxy.state.local_traffic import UNTOLD, LocalSource
from kubewire.components.kube_proxy.state.model import (
    IPV4,
    IPV6,
    Endpoint,
    Endpoints,
    Node,
    ServicePort,
    ServicePortName,
    Services,
)

#: Above so many endpoints the comments in per-Service chains cost more memory than they are worth (upstream).
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
    def mark(self) -> str:
        return f"{1 << self.masquerade_bit:#x}"


@dataclass
class Cache:
    """What the last plan was made of. blocks and keys (the ServicePort and the chosen endpoints a block was built
    from) hold for context and node. sizes: endpoints of each Service port, chosen or not; total: of all of them;
    rules: of all blocks, in filter and in nat; generation: which plan that was."""

    context: Context | None = None
    node: Node | None = None
    blocks: dict[ServicePortName, Block] = field(default_factory=dict)
    keys: dict[ServicePortName, tuple[ServicePort, tuple[Endpoint, ...]]] = field(default_factory=dict)
    sizes: dict[ServicePortName, int] = field(default_factory=dict)
    total: int = 0
    rules: tuple[int, int] = (0, 0)
    generation: object = None

    def put(self, name: ServicePortName, block: Block | None) -> None:
        """None: there is none any more."""
        before = self.blocks.pop(name, None) if block is None else self.blocks.get(name)
        if block is not None:
            self.blocks[name] = block
        (old_filter, old_nat), (new_filter, new_nat) = _rules_of(before), _rules_of(block)
        self.rules = (self.rules[0] + new_filter - old_filter, self.rules[1] + new_nat - old_nat)


@dataclass(frozen=True)
class Difference:
    """written: Service ports whose own chains are new or changed; stale: chains nobody needs any more; shared:
    whether a line of a shared chain is another."""

    written: frozenset[ServicePortName]
    stale: frozenset[str]
    shared: bool

    @property
    def empty(self) -> bool:
        return not (self.written or self.stale or self.shared)


@dataclass(frozen=True)
class Plan:
    """A whole desired state. blocks are in the order of their names; rules: how many they have in filter and in nat.
    touched: the only names whose blocks may differ from those of the plan whose generation is follows."""

    config: Config
    blocks: Mapping[ServicePortName, Block]
    rules: tuple[int, int] = (0, 0)
    generation: object = None
    follows: object = None
    touched: frozenset[ServicePortName] = frozenset()

    def since(self, earlier: Plan) -> Difference:
        """Blocks are kept while nothing changes (see plan), so identity tells what did. Costs as much as was touched
        when earlier is the plan before."""
        direct = earlier.generation is not None and earlier.generation is self.follows
        names = self.touched if direct else self.blocks.keys() | earlier.blocks.keys()
        differing = [name for name in names if earlier.blocks.get(name) is not self.blocks.get(name)]
        written = frozenset(name for name in differing if name in self.blocks)
        gone = [name for name in differing if name not in self.blocks]
        touched = [earlier.blocks[name] for name in (*written, *gone) if name in earlier.blocks]
        before = {chain for block in touched for chain in block.chains}
        after = {chain for name in written for chain in self.blocks[name].chains}
        shared = self.config != earlier.config or bool(gone)
        shared = shared or any(not _same_shared(earlier.blocks.get(name), self.blocks[name]) for name in written)
        return Difference(written, frozenset(before - after), shared)

    @property
    def service_chains(self) -> frozenset[str]:
        return frozenset(chain for block in self.blocks.values() for chain in block.chains)

    def totals(self) -> dict[str, int]:
        """Rules per table when everything is written."""
        fixed = rule_counts(Plan(self.config, {}).text())
        return {"filter": fixed["filter"] + self.rules[0], "nat": fixed["nat"] + self.rules[1]}

    def text(
        self,
        *,
        only: Collection[ServicePortName] | None = None,
        shared: bool = True,
        stale: Iterable[str] = (),
        jumps: Iterable[chains.Jump] = (),
        canaries: Iterable[str] = (),
    ) -> str:
        """Input for `iptables-restore --noflush`. only: the Service ports whose own chains are written,
        None for all; shared: whether the shared chains are written; stale: chains to remove; jumps: rules
        to put at the head of built-in chains; canaries: tables whose canary chain is to be made."""
        written = [*self.blocks.values()] if only is None else [self.blocks[name] for name in sorted(only)]
        if not shared:
            return "\n".join(_own_chains(written, sorted(stale))) + "\n"
        jumps, canaries = list(jumps), set(canaries)
        out = _canary_table("mangle") if "mangle" in canaries else []
        out += self._filter(jumps, "filter" in canaries)
        out += self._nat(written, sorted(stale), jumps, "nat" in canaries)
        return "\n".join(out) + "\n"

    def _filter(self, jumps: list[chains.Jump], canary: bool) -> list[str]:
        firewall = self.config.family == IPV4 and self.config.localhost_node_ports
        extra = [chains.KUBELET_FIREWALL] * firewall + [chains.CANARY] * canary
        return [
            "*filter",
            *(f":{chain} - [0:0]" for chain in (*chains.BASE_CHAINS["filter"], *extra)),
            *_insertions("filter", jumps),
            *([_BLOCK_LOCALNET] if firewall else []),
            *(line for block in self.blocks.values() for line in block.filter_lines),
            *_forward_rules(self.config),
            "COMMIT",
        ]

    def _nat(self, written: list[Block], stale: list[str], jumps: list[chains.Jump], canary: bool) -> list[str]:
        shared = (*chains.BASE_CHAINS["nat"], *([chains.CANARY] if canary else []))
        own = (chain for block in written for chain in block.chains)
        return [
            "*nat",
            *(f":{chain} - [0:0]" for chain in (*shared, *own, *stale)),
            *_insertions("nat", jumps),
            *_masquerade_rules(self.config),
            *(line for block in self.blocks.values() for line in block.shared_lines),
            *(line for block in written for line in block.own_lines),
            *(f"-X {chain}" for chain in stale),
            *_node_port_jumps(self.config),
            "COMMIT",
        ]


def plan(
    services: Services,
    endpoints: Endpoints,
    node: Node,
    config: Config,
    cache: Cache | None = None,
    changed: Collection[ServicePortName] | None = None,
) -> Plan:
    """The plan for one family. cache holds what the call before built and is brought up to date; changed are the
    names that may differ from that call, None any."""
    cache = cache if cache is not None else Cache()
    _count_endpoints(services, endpoints, cache, changed)
    context = Context(
        node_ip=next((ip for ip in node.ips if (":" in ip) == (config.family == IPV6)), ""),
        local_source=local_match(config.local_source),
        masquerade_all=config.masquerade_all,
        comments=cache.total <= LARGE_CLUSTER_ENDPOINTS,
    )
    if context != cache.context:
        cache.keys.clear()
    if changed is None or context != cache.context or node != cache.node:
        changed = {*services, *cache.blocks}
    cache.context, cache.node = context, node
    follows, cache.generation = cache.generation, object()
    grown = any(name in services and name not in cache.blocks for name in changed)
    for name in changed:
        _refresh(name, services.get(name), endpoints.get(name, ()), cache)
    if grown:
        cache.blocks = {name: cache.blocks[name] for name in sorted(cache.blocks)}
    return Plan(config, dict(cache.blocks), cache.rules, cache.generation, follows, frozenset(changed))


def _count_endpoints(
    services: Services, endpoints: Endpoints, cache: Cache, changed: Collection[ServicePortName] | None
) -> None:
    for name in changed if changed is not None else {*services, *cache.sizes}:
        size = len(endpoints.get(name, ())) if name in services else 0
        cache.total += size - cache.sizes.pop(name, 0)
        if size:
            cache.sizes[name] = size


def _rules_of(block: Block | None) -> tuple[int, int]:
    """In filter and in nat."""
    return (len(block.filter_lines), len(block.shared_lines) + len(block.own_lines)) if block else (0, 0)


def _refresh(name: ServicePortName, service: ServicePort | None, endpoints: tuple[Endpoint, ...], cache: Cache) -> None:
    if service is None or cache.context is None or cache.node is None:
        cache.put(name, None)
        cache.keys.pop(name, None)
        return
    chosen = topology.choose(endpoints, service, cache.node)
    # The chosen ones, not all: a change of hints or of a condition that changes nothing costs nothing.
    key = (service, (*chosen.cluster, _SEPARATOR, *chosen.local, *([_SEPARATOR] if chosen.anywhere else [])))
    if cache.keys.get(name) != key:
        cache.keys[name] = key
        cache.put(name, build(name, service, chosen, cache.context))


def _same_shared(earlier: Block | None, later: Block) -> bool:
    return earlier is not None and (earlier.shared_lines, earlier.filter_lines) == (
        later.shared_lines,
        later.filter_lines,
    )


def _own_chains(written: Collection[Block], stale: Collection[str]) -> list[str]:
    own = (chain for block in written for chain in block.chains)
    return [
        "*nat",
        *(f":{chain} - [0:0]" for chain in (*own, *stale)),
        *(line for block in written for line in block.own_lines),
        *(f"-X {chain}" for chain in stale),
        "COMMIT",
    ]


def render(services: Services, endpoints: Endpoints, node: Node, config: Config) -> str:
    """The whole desired state as text, for golden files and readers."""
    return plan(services, endpoints, node, config).text()


_SEPARATOR = Endpoint("", 0)
# route_localnet makes 127.0.0.0/8 reachable from the link; only translated packets may use that
# (https://github.com/kubernetes/kubernetes/issues/90259). The kubelet writes the same rule.
_BLOCK_LOCALNET = (
    f'-A {chains.KUBELET_FIREWALL} -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 '
    "! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)


def _canary_table(table: str) -> list[str]:
    return [f"*{table}", f":{chains.CANARY} - [0:0]", "COMMIT"]


def _insertions(table: str, jumps: Iterable[chains.Jump]) -> list[str]:
    return [f"-I {jump.source} 1 {jump.rule}" for jump in jumps if jump.table == table]


def _masquerade_rules(config: Config) -> list[str]:
    mark, post = config.mark, chains.POSTROUTING
    fully = " --random-fully" if config.random_fully else ""
    return [
        f"-A {post} -m mark ! --mark {mark}/{mark} -j RETURN",
        # Clear the mark: the packet may pass POSTROUTING again (encapsulated).
        f"-A {post} -j MARK --xor-mark {mark}",
        f'-A {post} -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE{fully}',
        f"-A {chains.MARK_MASQ} -j MARK --or-mark {mark}",
    ]


def _forward_rules(config: Config) -> list[str]:
    mark, forward = config.mark, chains.FORWARD
    # An INVALID packet would leave untranslated and reset the connection (kubernetes issue 74839).
    invalid = [] if config.conntrack_tcp_be_liberal else [f"-A {forward} -m conntrack --ctstate INVALID -j DROP"]
    return [
        *invalid,
        f'-A {forward} -m comment --comment "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT',
        f'-A {forward} -m comment --comment "kubernetes forwarding conntrack rule" '
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]


def _node_port_jumps(config: Config) -> list[str]:
    head = (
        f"-A {chains.SERVICES} -m comment --comment "
        '"kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
    )
    if config.node_port_ips is not None:
        return [f"{head} -d {ip} -j {chains.NODEPORTS}" for ip in sorted(config.node_port_ips)]
    barred = ""
    if config.family == IPV6:
        barred = " ! -d ::1/128"
    elif not config.localhost_node_ports:
        barred = " ! -d 127.0.0.0/8"
    return [f"{head} -m addrtype --dst-type LOCAL{barred} -j {chains.NODEPORTS}"]


def rule_counts(text: str) -> dict[str, int]:
    """Rules per table in restore input; jumps in built-in chains are not counted."""
    counts: dict[str, int] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            counts[table] = counts.get(table, 0) + 1
    return counts
