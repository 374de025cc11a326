"""The chain of ip-masq-agent, which AKS runs beside the network plugin. Pure.

Addresses of the VNET (and of an overlay) are known inside the VNET, so packets to them keep the
pod's address and network security groups see the real source. All other destinations have no route
back to a pod; their packets get the node's address. The chain lists the inside ranges, and its last
rule masquerades everything else.

(https://github.com/Azure/ip-masq-agent-v2, cmd/ip-masq-agent/ip-masq-agent.go)
"""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.kernel.nfnetlink.xtables import (
    RETURN,
    Comment,
    Destination,
    Jump,
    Masquerade,
    Rule,
    ToThisHost,
)

CHAIN = "IP-MASQ-AGENT"
_WHY = (
    f"ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom {CHAIN} chain"
)
_JUMP = Rule((Comment(f"ip-masq-agent: {_WHY}"), ToThisHost(negated=True)), Jump(CHAIN))


def rules(inside: Iterable[str]) -> Ruleset:
    """inside: the nonMasqueradeCIDRs."""
    local = Comment("ip-masq-agent: local traffic is not subject to MASQUERADE")
    last = Comment(
        "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)",
    )
    kept = (Rule((Destination(cidr), local), RETURN) for cidr in inside)
    chain = Chain("nat", CHAIN, (*kept, Rule((last,), Masquerade())))
    return Ruleset((chain,), (Lead("nat", "POSTROUTING", (_JUMP,)),))
