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

CHAIN = "IP-MASQ-AGENT"
_JUMP = (
    '-m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic '
    f'to our custom {CHAIN} chain" -m addrtype ! --dst-type LOCAL -j {CHAIN}'
)


def rules(inside: Iterable[str]) -> Ruleset:
    """inside: the nonMasqueradeCIDRs."""
    local = "ip-masq-agent: local traffic is not subject to MASQUERADE"
    last = "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"
    chain = Chain(
        "nat",
        CHAIN,
        (
            *(f'-d {cidr} -m comment --comment "{local}" -j RETURN' for cidr in inside),
            f'-m comment --comment "{last}" -j MASQUERADE',
        ),
    )
    return Ruleset((chain,), (Lead("nat", "POSTROUTING", (_JUMP,)),))
