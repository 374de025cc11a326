"""Which IP families this node can serve: both where the kernel has them, as upstream does it; a
family without Services costs its base chains and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kubewire.components.kube_proxy import modes
from kubewire.components.kube_proxy.iptables.applier import Iptables
from kubewire.components.kube_proxy.state.model import IPV4, IPV6


class FamiliesError(Exception):
    """Nothing can be proxied here; reads as a sentence."""


async def available_families(mode: str) -> list[str]:
    """Raises FamiliesError when not even one works."""
    found = [family for family in (IPV4, IPV6) if _in_kernel(family)]
    if modes.of(mode).uses_iptables:
        # Upstream's test: the nat table answers. Kernels without ip6tables' NAT exist.
        answers = await asyncio.gather(
            *(Iptables(family).has_chain("nat", "POSTROUTING") for family in found)
        )
        found = [family for family, works in zip(found, answers, strict=True) if works]
    if not found:
        raise FamiliesError(f"no {mode} support for IPv4 or IPv6")
    return found


def _in_kernel(family: str) -> bool:
    return family == IPV4 or Path("/proc/net/if_inet6").exists()
