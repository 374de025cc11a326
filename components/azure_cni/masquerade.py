"""ip-masq-agent's chain, which AKS runs beside the network: what stays inside is not translated. Pure.

(https://github.com/Azure/ip-masq-agent-v2, cmd/ip-masq-agent/ip-masq-agent.go)
"""

from __future__ import annotations

from collections.abc import Iterable

CHAIN = "IP-MASQ-AGENT"
JUMP = (
    'POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic '
    f'to our custom {CHAIN} chain" -m addrtype ! --dst-type LOCAL -j {CHAIN}'
)


def chain(inside: Iterable[str]) -> str:
    """`iptables-restore --noflush` input. inside: nonMasqueradeCIDRs."""
    lines = ["*nat", f":{CHAIN} - [0:0]"]
    local = "ip-masq-agent: local traffic is not subject to MASQUERADE"
    lines += [f'-A {CHAIN} -d {cidr} -m comment --comment "{local}" -j RETURN' for cidr in inside]
    last = "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"
    lines += [f'-A {CHAIN} -m comment --comment "{last}" -j MASQUERADE', "COMMIT"]
    return "".join(f"{line}\n" for line in lines)
