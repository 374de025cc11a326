"""Keeps the kubelet's iptables chains (chains.py) in the kernel of its node."""

from __future__ import annotations

import logging

from kubewire.components.kernel import iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubelet.chains import rules

log = logging.getLogger(__name__)
_VERSIONS = (4, 6)
#: Between two looks for a flush.
_LOOK_SECONDS = 60.0


async def keep() -> None:
    """Makes them, and makes them again when they are gone. A family that the node's iptables does
    not have is left out."""
    versions = [version for version in _VERSIONS if await _made(version)]

    async def again() -> None:
        for version in versions:
            await _made(version)

    if versions:
        await iptables.keep(again, _LOOK_SECONDS)


async def _made(version: int) -> bool:
    try:
        await iptables.ensure(rules(version), version)
    except (CommandError, OSError, TimeoutError) as error:
        text = "Failed to initialize iptables rules of IPv%d; some functionality may be missing: %s"
        log.warning(text, version, error)
        return False
    return True
