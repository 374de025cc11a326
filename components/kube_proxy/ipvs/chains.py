"""The packet's way in IPVS mode as tables, and the rules of the fixed chains. Pure.

    nat     PREROUTING, OUTPUT -> KUBE-SERVICES: who is masqueraded (KUBE-LOAD-BALANCER, KUBE-NODE-PORT)
    filter  INPUT, FORWARD     -> KUBE-PROXY-FIREWALL -> KUBE-SOURCE-RANGES-FIREWALL (drop)
            INPUT              -> KUBE-NODE-PORT (health checks), KUBE-IPVS-FILTER: no such port (reject)
            OUTPUT             -> KUBE-IPVS-OUT-FILTER: balancers that the node itself may not reach (drop)
            FORWARD            -> KUBE-FORWARD
    then    ip_vs, in LOCAL_IN behind INPUT and in LOCAL_OUT: picks the endpoint
    nat     POSTROUTING        -> KUBE-POSTROUTING: hairpin (KUBE-LOOP-BACK) and what is marked

Names, comments and order are upstream's (pkg/proxy/ipvs/proxier.go).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kubewire.components.kernel.nfnetlink import xtables as xt
from kubewire.components.kernel.nfnetlink.iptables import Append, TableChange, restore_input
from kubewire.components.kernel.nfnetlink.xtables import Rule
from kubewire.components.kube_proxy.iptables import chains as kube_proxy
from kubewire.components.kube_proxy.iptables.rules import forward_rules, masquerade_rules
from kubewire.components.kube_proxy.iptables.service import local_match
from kubewire.components.kube_proxy.ipvs import sets
from kubewire.components.kube_proxy.planner import Chains, by_chain
from kubewire.components.kube_proxy.state.local_traffic import UNTOLD, LocalSource
from kubewire.components.kube_proxy.state.model import IPV4, IPV6

SERVICES, POSTROUTING, MARK_MASQ = "KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"
NODE_PORT, LOAD_BALANCER, FORWARD = "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-FORWARD"
PROXY_FIREWALL, SOURCE_RANGES_FIREWALL = "KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL"
IPVS_FILTER, IPVS_OUT_FILTER = "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"

BASE_CHAINS: dict[str, tuple[str, ...]] = {
    "nat": (SERVICES, POSTROUTING, NODE_PORT, LOAD_BALANCER, MARK_MASQ),
    "filter": (
        FORWARD,
        NODE_PORT,
        PROXY_FIREWALL,
        SOURCE_RANGES_FIREWALL,
        IPVS_FILTER,
        IPVS_OUT_FILTER,
    ),
}
#: Each is put at the head of its chain when it is not there, so the last of a chain ends up first.
JUMPS = (
    kube_proxy.Jump("nat", "OUTPUT", SERVICES, "kubernetes service portals"),
    kube_proxy.Jump("nat", "PREROUTING", SERVICES, "kubernetes service portals"),
    kube_proxy.Jump("nat", "POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
    kube_proxy.Jump("filter", "FORWARD", FORWARD, "kubernetes forwarding rules"),
    kube_proxy.Jump("filter", "INPUT", NODE_PORT, "kubernetes health check rules"),
    kube_proxy.Jump("filter", "INPUT", PROXY_FIREWALL, "kube-proxy firewall rules"),
    kube_proxy.Jump("filter", "FORWARD", PROXY_FIREWALL, "kube-proxy firewall rules"),
    kube_proxy.Jump("filter", "INPUT", IPVS_FILTER, "kubernetes ipvs access filter"),
    kube_proxy.Jump("filter", "OUTPUT", IPVS_OUT_FILTER, "kubernetes ipvs access filter"),
)


class _Match(NamedTuple):
    """A rule that is there while its set has entries."""

    set: str
    table: str
    chain: str
    target: xt.Target
    dimensions: str
    protocol: str = ""


_MASQUERADE = xt.Jump(MARK_MASQ)
#: A NodePort of policy Local must be met before the same one in the set of all NodePorts.
_MATCHES = (
    _Match(sets.LOOP_BACK, "nat", POSTROUTING, xt.Masquerade(), "dst,dst,src"),
    _Match(sets.LOAD_BALANCER, "nat", SERVICES, xt.Jump(LOAD_BALANCER), "dst,dst"),
    _Match(sets.LOAD_BALANCER_LOCAL, "nat", LOAD_BALANCER, xt.RETURN, "dst,dst"),
    _Match(sets.NODE_PORT_LOCAL["tcp"], "nat", NODE_PORT, xt.RETURN, "dst", "tcp"),
    _Match(sets.NODE_PORT["tcp"], "nat", NODE_PORT, _MASQUERADE, "dst", "tcp"),
    _Match(sets.NODE_PORT_LOCAL["udp"], "nat", NODE_PORT, xt.RETURN, "dst", "udp"),
    _Match(sets.NODE_PORT["udp"], "nat", NODE_PORT, _MASQUERADE, "dst", "udp"),
    _Match(sets.NODE_PORT_LOCAL["sctp"], "nat", NODE_PORT, xt.RETURN, "dst,dst", "sctp"),
    _Match(sets.NODE_PORT["sctp"], "nat", NODE_PORT, _MASQUERADE, "dst,dst", "sctp"),
    _Match(
        sets.LOAD_BALANCER_FW, "filter", PROXY_FIREWALL, xt.Jump(SOURCE_RANGES_FIREWALL), "dst,dst"
    ),
    _Match(
        sets.LOAD_BALANCER_SOURCE_CIDR, "filter", SOURCE_RANGES_FIREWALL, xt.RETURN, "dst,dst,src"
    ),
    _Match(
        sets.LOAD_BALANCER_SOURCE_IP, "filter", SOURCE_RANGES_FIREWALL, xt.RETURN, "dst,dst,src"
    ),
)


class Balancer(NamedTuple):
    """A balancer's address and port whose source ranges leave this node out."""

    ip: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Rules:
    """Everything the chains' text depends on. nonempty: sets that have entries."""

    family: str = IPV4
    local_source: LocalSource = UNTOLD
    masquerade_all: bool = False
    masquerade_bit: int = 14
    nonempty: frozenset[str] = frozenset()
    closed_to_node: tuple[Balancer, ...] = ()

    @property
    def mark(self) -> int:
        return 1 << self.masquerade_bit

    def everything(self, jumps: Collection[kube_proxy.Jump] = ()) -> list[TableChange]:
        """jumps: to be put at the heads of built-in chains."""
        return [
            TableChange(table, BASE_CHAINS[table], kube_proxy.heads(table, jumps), rules)
            for table, rules in self._tables().items()
        ]

    def difference(self, before: Rules) -> list[TableChange]:
        """What leads here from other rules: the chains that differ."""
        earlier, changes = before._tables(), []
        for table, rules in self._tables().items():
            found = Chains[Rule]()
            found.compare(
                by_chain(earlier[table], BASE_CHAINS[table]), by_chain(rules, BASE_CHAINS[table])
            )
            written = [append for append in rules if append.chain in found.rewritten]
            changes.append(TableChange(table, [*found.rewritten], rules=written))
        return changes

    def text(self) -> str:
        """Everything, for golden files and readers."""
        return restore_input(self.everything())

    def _tables(self) -> dict[str, list[Append]]:
        return {"nat": [*self._nat()], "filter": [*self._filter()]}

    def _nat(self) -> Iterator[Append]:
        # What comes from localhost is no Service's business.
        loopback = xt.Source("::1/128" if self.family == IPV6 else "127.0.0.0/8")
        yield Append(SERVICES, Rule((loopback,), xt.RETURN))
        yield from self._matches("nat")
        yield from self._cluster_ips()
        yield from self._external_ips()
        yield Append(SERVICES, Rule((xt.ToThisHost(),), xt.Jump(NODE_PORT)))
        yield Append(LOAD_BALANCER, Rule((), _MASQUERADE))
        # Last: others' rules behind this chain shall not keep these packets from ip_vs.
        for name in (sets.CLUSTER_IP, sets.LOAD_BALANCER):
            if name in self.nonempty:
                yield Append(SERVICES, Rule((self._set(name, "dst,dst"),), xt.ACCEPT))
        yield from masquerade_rules(self.mark)

    def _matches(self, table: str) -> Iterator[Append]:
        for item in _MATCHES:
            if item.table == table and item.set in self.nonempty:
                protocol = (xt.OfProtocol(item.protocol),) if item.protocol else ()
                yield Append(
                    item.chain,
                    Rule((*protocol, *self._commented(item.set, item.dimensions)), item.target),
                )

    def _cluster_ips(self) -> Iterator[Append]:
        if sets.CLUSTER_IP not in self.nonempty:
            return
        outside = None if self.masquerade_all else local_match(self.local_source, negated=True)
        # A process of the node gets the Service's own address as its source, for it is local
        # (kube-ipvs0).
        dimensions = "dst,dst" if self.masquerade_all or outside else "src,dst"
        matches = (*self._commented(sets.CLUSTER_IP, dimensions), *((outside,) if outside else ()))
        yield Append(SERVICES, Rule(matches, _MASQUERADE))

    def _external_ips(self) -> Iterator[Append]:
        from_outside = (xt.Words("-m physdev ! --physdev-is-in"), xt.FromThisHost(negated=True))
        for name in (sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL):
            if name in self.nonempty:
                to_service = self._commented(name, "dst,dst")
                if name == sets.EXTERNAL_IP:
                    yield Append(SERVICES, Rule(to_service, _MASQUERADE))
                yield Append(SERVICES, Rule((*to_service, *from_outside), xt.ACCEPT))
                yield Append(SERVICES, Rule((*to_service, xt.ToThisHost()), xt.ACCEPT))

    def _filter(self) -> Iterator[Append]:
        yield from self._matches("filter")
        yield Append(SOURCE_RANGES_FIREWALL, Rule((), xt.DROP))
        for ip, protocol, port in self.closed_to_node:
            to_balancer = xt.Words(f"-m ipvs --vaddr {ip} --vproto {protocol} --vport {port}")
            yield Append(IPVS_OUT_FILTER, Rule((xt.Source(ip), to_balancer), xt.DROP))
        yield from forward_rules(self.mark)
        yield Append(
            NODE_PORT, Rule(self._commented(sets.HEALTH_CHECK_NODE_PORT, "dst"), xt.ACCEPT)
        )
        # Ports of the node itself shall not be had by a Service's address (kubernetes issue 72236); this is why
        # nobody answers the ping of a ClusterIP, though the address is on kube-ipvs0.
        for name in (sets.LOAD_BALANCER, sets.CLUSTER_IP, sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL):
            yield Append(IPVS_FILTER, Rule((self._set(name, "dst,dst"),), xt.RETURN))
        yield Append(IPVS_FILTER, Rule((self._set(sets.HEALTH_CHECK_NODE_PORT, "dst"),), xt.RETURN))
        refused = (xt.ConnectionState(("NEW",)), self._set(sets.IPVS_IPS, "dst"))
        yield Append(IPVS_FILTER, Rule(refused, xt.Reject()))

    def _set(self, name: str, dimensions: str) -> xt.Match:
        return xt.Words(f"-m set --match-set {sets.named(name, self.family)} {dimensions}")

    def _commented(self, name: str, dimensions: str) -> tuple[xt.Match, xt.Match]:
        return xt.Comment(sets.SETS[name].comment), self._set(name, dimensions)
