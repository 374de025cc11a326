"""The iptables chains that upstream's kubelet owns on a node, in both IP families.

KUBE-FIREWALL drops packets to 127.0.0.0/8 that come from outside: kube-proxy lets NodePorts be
reached at 127.0.0.1 (route_localnet), and no neighbour on the link may use that. IPv6 has no such
sysctl, so its chain is empty. KUBE-IPTABLES-HINT tells programs in containers which of the two
variants of iptables the node uses. KUBE-KUBELET-CANARY tells the kubelet that somebody has flushed
the rules.

(pkg/kubelet/kubelet_network_linux.go)
"""

from __future__ import annotations

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset

_FIREWALL = "KUBE-FIREWALL"
_HINT = "KUBE-IPTABLES-HINT"
_CANARY = "KUBE-KUBELET-CANARY"
_LOCALNET = (
    "! -s 127.0.0.0/8 -d 127.0.0.0/8 "
    '-m comment --comment "block incoming localnet connections" '
    "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)


def rules(version: int) -> Ruleset:
    """The chains of an IP version, and the jumps to them."""
    chains = (
        Chain("filter", _FIREWALL, (_LOCALNET,) if version == 4 else ()),
        Chain("mangle", _HINT, ()),
        *(Chain(table, _CANARY, ()) for table in ("mangle", "nat", "filter")),
    )
    jumps = tuple(
        Lead("filter", chain, (f"-j {_FIREWALL}",), at_head=True) for chain in ("INPUT", "OUTPUT")
    )
    return Ruleset(chains, jumps)
