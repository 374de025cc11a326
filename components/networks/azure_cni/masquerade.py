"""ip-masq-agent's chain, which AKS runs beside the network: what stays inside is not translated. Pure.

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
    """inside: nonMasqueradeCIDRs."""
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
