"""The packet's way in IPVS mode as tables, and the fixed chains as iptables-restore text. Pure.

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

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kubewire.components.kube_proxy.iptables.chains import Jump
from kubewire.components.kube_proxy.iptables.service import local_match
from kubewire.components.kube_proxy.ipvs import sets
from kubewire.components.kube_proxy.state.local_traffic import UNTOLD, LocalSource
from kubewire.components.kube_proxy.state.model import IPV4, IPV6

SERVICES, POSTROUTING, MARK_MASQ = "KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"
NODE_PORT, LOAD_BALANCER, FORWARD = "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-FORWARD"
PROXY_FIREWALL, SOURCE_RANGES_FIREWALL = "KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL"
IPVS_FILTER, IPVS_OUT_FILTER = "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"

BASE_CHAINS: dict[str, tuple[str, ...]] = {
    "nat": (SERVICES, POSTROUTING, NODE_PORT, LOAD_BALANCER, MARK_MASQ),
    "filter": (FORWARD, NODE_PORT, PROXY_FIREWALL, SOURCE_RANGES_FIREWALL, IPVS_FILTER, IPVS_OUT_FILTER),
}
#: Each is put at the head of its chain when it is not there, so the last of a chain ends up first.
JUMPS = (
    Jump("nat", "OUTPUT", SERVICES, "kubernetes service portals"),
    Jump("nat", "PREROUTING", SERVICES, "kubernetes service portals"),
    Jump("nat", "POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
    Jump("filter", "FORWARD", FORWARD, "kubernetes forwarding rules"),
    Jump("filter", "INPUT", NODE_PORT, "kubernetes health check rules"),
    Jump("filter", "INPUT", PROXY_FIREWALL, "kube-proxy firewall rules"),
    Jump("filter", "FORWARD", PROXY_FIREWALL, "kube-proxy firewall rules"),
    Jump("filter", "INPUT", IPVS_FILTER, "kubernetes ipvs access filter"),
    Jump("filter", "OUTPUT", IPVS_OUT_FILTER, "kubernetes ipvs access filter"),
)


class _Match(NamedTuple):
    """A rule that is there while its set has entries."""

    set: str
    table: str
    chain: str
    target: str
    dimensions: str
    protocol: str = ""


#: A NodePort of policy Local must be met before the same one in the set of all NodePorts.
_MATCHES = (
    _Match(sets.LOOP_BACK, "nat", POSTROUTING, "MASQUERADE", "dst,dst,src"),
    _Match(sets.LOAD_BALANCER, "nat", SERVICES, LOAD_BALANCER, "dst,dst"),
    _Match(sets.LOAD_BALANCER_LOCAL, "nat", LOAD_BALANCER, "RETURN", "dst,dst"),
    _Match(sets.NODE_PORT_LOCAL["tcp"], "nat", NODE_PORT, "RETURN", "dst", "tcp"),
    _Match(sets.NODE_PORT["tcp"], "nat", NODE_PORT, MARK_MASQ, "dst", "tcp"),
    _Match(sets.NODE_PORT_LOCAL["udp"], "nat", NODE_PORT, "RETURN", "dst", "udp"),
    _Match(sets.NODE_PORT["udp"], "nat", NODE_PORT, MARK_MASQ, "dst", "udp"),
    _Match(sets.NODE_PORT_LOCAL["sctp"], "nat", NODE_PORT, "RETURN", "dst,dst", "sctp"),
    _Match(sets.NODE_PORT["sctp"], "nat", NODE_PORT, MARK_MASQ, "dst,dst", "sctp"),
    _Match(sets.LOAD_BALANCER_FW, "filter", PROXY_FIREWALL, SOURCE_RANGES_FIREWALL, "dst,dst"),
    _Match(sets.LOAD_BALANCER_SOURCE_CIDR, "filter", SOURCE_RANGES_FIREWALL, "RETURN", "dst,dst,src"),
    _Match(sets.LOAD_BALANCER_SOURCE_IP, "filter", SOURCE_RANGES_FIREWALL, "RETURN", "dst,dst,src"),
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
    def mark(self) -> str:
        return f"{1 << self.masquerade_bit:#x}"

    def text(self, jumps: Collection[Jump] = ()) -> str:
        """Input for `iptables-restore --noflush`. jumps: to be put at the head of built-in chains."""
        out = [*_head("nat", jumps), *self._nat(), "COMMIT", *_head("filter", jumps), *self._filter(), "COMMIT"]
        return "\n".join(out) + "\n"

    def _nat(self) -> list[str]:
        loopback = "::1/128" if self.family == IPV6 else "127.0.0.0/8"
        accepted = [name for name in (sets.CLUSTER_IP, sets.LOAD_BALANCER) if name in self.nonempty]
        return [
            # What comes from localhost is no Service's business.
            f"-A {SERVICES} -s {loopback} -j RETURN",
            *self._matches("nat"),
            *self._cluster_ips(),
            *self._external_ips(),
            f"-A {SERVICES} -m addrtype --dst-type LOCAL -j {NODE_PORT}",
            f"-A {LOAD_BALANCER} -j {MARK_MASQ}",
            # Last: others' rules behind this chain shall not keep these packets from ip_vs.
            *(f"-A {SERVICES} {self._set(name, 'dst,dst')} -j ACCEPT" for name in accepted),
            f"-A {POSTROUTING} -m mark ! --mark {self.mark}/{self.mark} -j RETURN",
            # Clear the mark: the packet may pass POSTROUTING again (encapsulated).
            f"-A {POSTROUTING} -j MARK --xor-mark {self.mark}",
            f'-A {POSTROUTING} -m comment --comment "kubernetes service traffic requiring SNAT" '
            "-j MASQUERADE --random-fully",
            f"-A {MARK_MASQ} -j MARK --or-mark {self.mark}",
        ]

    def _matches(self, table: str) -> Iterable[str]:
        for item in _MATCHES:
            if item.table == table and item.set in self.nonempty:
                protocol = f"-p {item.protocol} " if item.protocol else ""
                yield f"-A {item.chain} {protocol}{self._commented(item.set, item.dimensions)} -j {item.target}"

    def _cluster_ips(self) -> list[str]:
        if sets.CLUSTER_IP not in self.nonempty:
            return []
        head = f"-A {SERVICES} "
        if self.masquerade_all:
            return [f"{head}{self._commented(sets.CLUSTER_IP, 'dst,dst')} -j {MARK_MASQ}"]
        if self.local_source:
            other = f"! {local_match(self.local_source)}"
            return [f"{head}{self._commented(sets.CLUSTER_IP, 'dst,dst')} {other} -j {MARK_MASQ}"]
        # A process of the node gets the Service's own address as its source, for it is local (kube-ipvs0).
        return [f"{head}{self._commented(sets.CLUSTER_IP, 'src,dst')} -j {MARK_MASQ}"]

    def _external_ips(self) -> Iterable[str]:
        for name in (sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL):
            if name in self.nonempty:
                head = f"-A {SERVICES} {self._commented(name, 'dst,dst')}"
                if name == sets.EXTERNAL_IP:
                    yield f"{head} -j {MARK_MASQ}"
                yield f"{head} -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT"
                yield f"{head} -m addrtype --dst-type LOCAL -j ACCEPT"

    def _filter(self) -> list[str]:
        through: Sequence[tuple[str, str]] = (
            *((name, "dst,dst") for name in (sets.LOAD_BALANCER, sets.CLUSTER_IP)),
            *((name, "dst,dst") for name in (sets.EXTERNAL_IP, sets.EXTERNAL_IP_LOCAL)),
            (sets.HEALTH_CHECK_NODE_PORT, "dst"),
        )
        return [
            *self._matches("filter"),
            f"-A {SOURCE_RANGES_FIREWALL} -j DROP",
            *(self._closed(balancer) for balancer in self.closed_to_node),
            f'-A {FORWARD} -m comment --comment "kubernetes forwarding rules" -m mark --mark {self.mark}/{self.mark} '
            "-j ACCEPT",
            f'-A {FORWARD} -m comment --comment "kubernetes forwarding conntrack rule" '
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A {NODE_PORT} {self._commented(sets.HEALTH_CHECK_NODE_PORT, 'dst')} -j ACCEPT",
            # Ports of the node itself shall not be had by a Service's address (kubernetes issue 72236); this is why
            # nobody answers the ping of a ClusterIP, though the address is on kube-ipvs0.
            *(f"-A {IPVS_FILTER} {self._set(name, dimensions)} -j RETURN" for name, dimensions in through),
            f"-A {IPVS_FILTER} -m conntrack --ctstate NEW {self._set(sets.IPVS_IPS, 'dst')} -j REJECT",
        ]

    def _closed(self, balancer: Balancer) -> str:
        ip, protocol, port = balancer
        match = f"-m ipvs --vaddr {ip} --vproto {protocol} --vport {port}"
        return f"-A {IPVS_OUT_FILTER} -s {ip} {match} -j DROP"

    def _set(self, name: str, dimensions: str) -> str:
        return f"-m set --match-set {sets.named(name, self.family)} {dimensions}"

    def _commented(self, name: str, dimensions: str) -> str:
        return f'-m comment --comment "{sets.SETS[name].comment}" {self._set(name, dimensions)}'


def _head(table: str, jumps: Collection[Jump]) -> list[str]:
    chains = [f":{chain} - [0:0]" for chain in BASE_CHAINS[table]]
    return [f"*{table}", *chains, *(f"-I {jump.source} 1 {jump.rule}" for jump in jumps if jump.table == table)]
