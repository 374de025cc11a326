"""The rules that all Services share: what is there before the first one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.components.kube_proxy.nftables import chains
from kubewire.components.kube_proxy.nftables.expressions import Mark, Text
from kubewire.components.kube_proxy.nftables.service import local_pod
from kubewire.components.kube_proxy.nftables.statements import (
    AddChain,
    AddContainer,
    AddElement,
    AddRule,
    AddTable,
    DeleteChain,
    DeleteSet,
    Element,
    FlushChain,
    FlushContainer,
    Rule,
    Statement,
)
from kubewire.components.kube_proxy.state.local_traffic import UNTOLD, LocalSource
from kubewire.components.kube_proxy.state.model import IPV4, IPV6


@dataclass(frozen=True)
class Config:
    """What the configuration, the node and the cluster decide for one family."""

    family: str = IPV4
    local_source: LocalSource = UNTOLD
    masquerade_all: bool = False
    masquerade_bit: int = 14
    #: None: every local address; else the node's addresses in --nodeport-addresses.
    node_port_ips: tuple[str, ...] | None = None
    #: The ranges ClusterIPs are taken from.
    service_cidrs: tuple[str, ...] = ()

    @property
    def mark(self) -> int:
        return 1 << self.masquerade_bit

    @property
    def ip(self) -> str:
        return "ip6" if self.family == IPV6 else "ip"


_TO_PORT, _PORT = "IP daddr . meta l4proto . th dport vmap @", "meta l4proto . th dport vmap @"


def shared_rules(config: Config) -> dict[str, list[Rule]]:
    """chain -> its rules, except jumps from base chains."""
    mark = f"{config.mark:#010x}"
    node_port_ips, not_loopback = f"IP daddr @{chains.NODEPORT_IPS}", _not_loopback(config)
    if config.node_port_ips is None:
        to_node, to_node_in_input = f"fib daddr type local {not_loopback}", not_loopback
    else:
        to_node = to_node_in_input = node_port_ips
    return {
        chains.SERVICES: [
            *_masquerade_cluster_ips(config),
            _rule(_TO_PORT + chains.SERVICE_IPS),
            _rule(f"{to_node} {_PORT}{chains.SERVICE_NODEPORTS}"),
        ],
        chains.MASQUERADING: [
            # The mark is cleared: the packet may pass postrouting again (encapsulated).
            _rule(f"mark and {mark} != 0 mark set mark xor {mark} masquerade fully-random"),
            _rule(
                "ct status dnat IP saddr . IP daddr . meta l4proto . th dport "
                f"@{chains.HAIRPIN_CONNECTIONS} masquerade fully-random"
            ),
        ],
        chains.FIREWALL_CHECK: [_rule(_TO_PORT + chains.FIREWALL_IPS)],
        chains.SERVICE_ENDPOINTS_CHECK: [_rule(_TO_PORT + chains.NO_ENDPOINT_SERVICES)],
        chains.NODEPORT_ENDPOINTS_CHECK: [
            _rule(f"{to_node_in_input} {_PORT}{chains.NO_ENDPOINT_NODEPORTS}")
        ],
        chains.CLUSTER_IPS_CHECK: cluster_ips_check(config),
        chains.REJECT: [_rule("reject")],
    }


def cluster_ips_check(config: Config) -> list[Rule]:
    """Traffic to Service ports has been translated when it comes here."""
    out = [
        _rule(
            f"IP daddr @{chains.CLUSTER_IPS} reject",
            "Reject traffic to invalid ports of ClusterIPs",
        )
    ]
    if config.service_cidrs:
        ranges = ", ".join(config.service_cidrs)
        out.append(_rule(f"IP daddr {{ {ranges} }} drop", "Drop traffic to unallocated ClusterIPs"))
    return out


def _masquerade_cluster_ips(config: Config) -> list[Rule]:
    """Who comes from outside the pods (the node itself, another network routed here) is
    masqueraded: the endpoint's answer must return through this node."""
    to_cluster_ip = Text(f"IP daddr @{chains.CLUSTER_IPS}")
    if config.masquerade_all:
        return [Rule((to_cluster_ip, Mark(config.mark)), "masquerade all clusterIP traffic")]
    if not config.local_source:
        return []
    outside = local_pod(config.local_source, negated=True)
    return [
        Rule(
            (to_cluster_ip, outside, Mark(config.mark)),
            "masquerade clusterIP traffic from outside cluster",
        )
    ]


def _not_loopback(config: Config) -> str:
    return "IP daddr != ::1" if config.family == IPV6 else "IP daddr != 127.0.0.0/8"


def _rule(words: str, comment: str = "") -> Rule:
    return Rule((Text(words),), comment)


def setup(config: Config, *, there: bool = False, foreign: bool = False) -> Iterator[Statement]:
    """The table with its base chains, shared chains and empty containers. there: chains and
    containers are there and are emptied. foreign: an earlier process made them; base chains are
    then made anew, as one of another priority could not be changed."""
    yield AddTable(chains.TABLE_COMMENT)
    for hook in chains.HOOKS if foreign else ():
        yield AddChain(hook.chain)
        yield DeleteChain(hook.chain)
    for hook in chains.HOOKS:
        yield AddChain(hook.chain, hook=hook)
        if there:
            yield FlushChain(hook.chain)
    for chain in chains.SHARED:
        yield AddChain(chain, chains.REJECT_COMMENT if chain == chains.REJECT else "")
        if there:
            yield FlushChain(chain)
    for container in chains.CONTAINERS:
        yield AddContainer(container)
        if there:
            yield FlushContainer(container)
    yield from _node_port_ips(config, there=there)
    for jump in chains.JUMPS:
        yield AddRule(jump.source, _rule(jump.rule))
    for chain, rules in shared_rules(config).items():
        yield from (AddRule(chain, rule) for rule in rules)


def service_cidrs_changed(config: Config) -> list[Statement]:
    """What is to do when nothing of config but service_cidrs has changed."""
    chain = chains.CLUSTER_IPS_CHECK
    return [FlushChain(chain), *(AddRule(chain, rule) for rule in cluster_ips_check(config))]


def _node_port_ips(config: Config, *, there: bool) -> Iterator[Statement]:
    container = chains.NODEPORT_IPS_CONTAINER
    if config.node_port_ips is None and not there:
        return
    yield AddContainer(container)
    if config.node_port_ips is None:
        yield DeleteSet(container.name)
        return
    if there:
        yield FlushContainer(container)
    for ip in config.node_port_ips:
        yield AddElement(Element(container.name, (ip,)))
