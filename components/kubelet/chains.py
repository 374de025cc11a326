"""The iptables chains that upstream's kubelet owns on a node, in both IP families.

KUBE-FIREWALL drops packets to 127.0.0.0/8 that come from outside: kube-proxy lets NodePorts be
reached at 127.0.0.1 (route_localnet), and no neighbour on the link may use that. IPv6 has no such
sysctl, so its chain is empty. KUBE-IPTABLES-HINT tells programs in containers which of the two
variants of iptables the node uses. KUBE-KUBELET-CANARY tells the kubelet that somebody has flushed
the rules.

(pkg/kubelet/kubelet_network_linux.go)
"""

from __future__ import annotations

import asyncio
import logging

from kubewire.components.kernel import iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iptables import Chain, Lead, Ruleset

log = logging.getLogger(__name__)
_FIREWALL = "KUBE-FIREWALL"
_HINT = "KUBE-IPTABLES-HINT"
_CANARY = "KUBE-KUBELET-CANARY"
_LOCALNET = (
    "! -s 127.0.0.0/8 -d 127.0.0.0/8 "
    '-m comment --comment "block incoming localnet connections" '
    "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)
_VERSIONS = (4, 6)
#: Between two looks for a flush.
_LOOK_SECONDS = 60.0


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


async def keep() -> None:
    """Makes them, and makes them again when they are gone. A family that the node's iptables does
    not have is left out."""
    versions = [version for version in _VERSIONS if await _made(version)]
    known: int | None = None
    while versions:
        await asyncio.sleep(_LOOK_SECONDS)
        # Asked before the look, so that no change is missed that comes during it.
        present = iptables.generation()
        if present is None or present != known:
            for version in versions:
                await _made(version)
            known = present


async def _made(version: int) -> bool:
    try:
        await iptables.ensure(rules(version), version)
    except (CommandError, OSError, TimeoutError) as error:
        text = "Failed to initialize iptables rules of IPv%d; some functionality may be missing: %s"
        log.warning(text, version, error)
        return False
    return True
