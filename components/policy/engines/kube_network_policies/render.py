"""Which packets are asked about: the chain and the sets of a node. Pure.

mangle POSTROUTING comes after Services are translated and before sources are masqueraded, for
forwarded packets and for those of IPVS, which do not pass FORWARD. A packet is asked about if it
belongs to no connection yet, and its source or destination is a pod of this node that a policy
selects; so pods without a policy cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.policy.applier import IPSet
from kubewire.components.policy.model import EndpointKind, State

CHAIN = "KUBE-NETWORK-POLICIES"
SETS = {4: "podips-v4", 6: "podips-v6"}
#: Neighbour discovery (RFC 4861): without it no IPv6 packet finds its way.
_NEIGHBOUR_DISCOVERY = (
    "router-solicitation",
    "router-advertisement",
    "neighbour-solicitation",
    "neighbour-advertisement",
    "redirect",
)


@dataclass(frozen=True)
class Options:
    """node: whose pods are looked at. fail_open: packets pass while nobody answers."""

    node: str
    queue: int = 100
    fail_open: bool = True


def ruleset(options: Options, version: int) -> Ruleset:
    """The chain of an IP version."""
    chain = Chain("mangle", CHAIN, tuple(_rules(options, version)))
    return Ruleset((chain,), (Lead("mangle", "POSTROUTING", (f"-j {CHAIN}",)),))


def _rules(options: Options, version: int) -> Iterator[str]:
    if version == 6:
        for name in _NEIGHBOUR_DISCOVERY:
            yield f"-p ipv6-icmp -m icmp6 --icmpv6-type {_NUMBERS[name]} -j RETURN"
    # What root of the node sends: the kubelet's probes, and other programs of the node.
    yield "-m owner --uid-owner 0 -j RETURN"
    yield "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    bypass = " --queue-bypass" if options.fail_open else ""
    for side in ("src", "dst"):
        match = f"-m set --match-set {SETS[version]} {side}"
        yield f"{match} -j NFQUEUE --queue-num {options.queue}{bypass}"


_NUMBERS = dict(zip(_NEIGHBOUR_DISCOVERY, range(133, 138), strict=True))


def sets(state: State, options: Options, version: int) -> tuple[IPSet, ...]:
    """The addresses of the node's pods that a policy selects."""
    family = "inet6" if version == 6 else "inet"
    members = dict.fromkeys(
        address
        for key, applied in sorted(state.applied.items())
        if (applied.ingress or applied.egress)
        and (pod := state.endpoints[key]).kind is EndpointKind.POD
        and pod.node == options.node
        for address in pod.addresses
        if (":" in address) == (version == 6)
    )
    return (IPSet(SETS[version], f"hash:ip family {family}", tuple(members)),)
