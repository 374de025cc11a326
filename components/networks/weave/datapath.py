"""Keeps the node's kernel in step with the mesh and the ring: devices, flood entries, rules, IPsec.

Devices, rules and addresses stay when weave-net ends, so pods keep their connections; the next
weave-net takes them over.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Address

from kubewire.components.kernel import iproute, ipset, iptables
from kubewire.components.kernel.iptables import Ruleset
from kubewire.components.networks.weave import dataplane, kernel
from kubewire.components.networks.weave.allocator import Allocator
from kubewire.components.networks.weave.dataplane import Device
from kubewire.components.networks.weave.mesh import Mesh
from kubewire.components.networks.weave.options import Options
from kubewire.components.networks.weave.overlay import FASTDP, SLEEVE, Overlay
from kubewire.components.networks.weave.patience import RETRY, TRANSIENT
from kubewire.components.networks.weave.security import Security

log = logging.getLogger("weave-net")

#: The bridge's own address belongs to this "container".
EXPOSE = "weave:expose"
#: Seconds for which changes are collected before the kernel is changed.
_GATHER = 0.02
#: Seconds after which the kernel is read again, even if nothing has changed.
_RESYNC = 10.0


class Datapath:
    """security: is set if the mesh has a password and uses VXLAN."""

    def __init__(
        self, options: Options, allocator: Allocator, mesh: Mesh, overlay: Overlay
    ) -> None:
        self._options, self._allocator, self._mesh, self._overlay = (
            options,
            allocator,
            mesh,
            overlay,
        )
        self.security: Security | None = None
        self._changed = asyncio.Event()
        self._heartbeats: set[tuple[str, str]] = set()
        self._own_ranges: object = None
        self._rules: Ruleset | None = None
        self._flood: list[str] | None = None
        self._slow: set[str] = set()
        self._listening = False

    def update(self) -> None:
        """Connections or associations have changed."""
        self._changed.set()

    def allocator_saved(self) -> None:
        """The allocator's state has changed; the kernel follows only the ranges that this peer
        owns."""
        if self._allocator.own_ranges() != self._own_ranges:
            self._changed.set()

    async def follow(self, device: Device) -> None:
        """Reconciles after every change, until cancelled."""
        while True:
            self._changed.clear()
            pause = _RESYNC
            try:
                await self._reconcile(device)
            except TRANSIENT as error:
                log.error("%s", error)
                self._rules = self._flood = self._own_ranges = None
                pause = RETRY
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:  # read the kernel's state again
                self._flood = self._rules = None
            await asyncio.sleep(_GATHER)

    async def _reconcile(self, device: Device) -> None:
        """Flooding to a departing peer ends before its encryption does.

        Raises CommandError, TimeoutError, OSError.
        """
        if self._flood is None:
            await self._look_at_devices(device)
        own = self._allocator.own_ranges()
        if own != self._own_ranges:
            await ipset.restore(dataplane.own_set(own))
            self._own_ranges = own
        await self._set_flood(self._fast_paths())
        security = self.security
        rules = dataplane.rules(
            self._options.default_subnet,
            security.incoming() if security else None,
            self._options.expect_npc,
        )
        if rules != self._rules:
            if self._options.expect_npc:
                for chain in (dataplane.NPC_MAIN, dataplane.NPC_EGRESS):
                    await iptables.create("filter", chain)
            await iptables.ensure(rules)
            self._rules = rules
        await self._set_sleeve(device)
        if security is not None:
            await security.apply()
        await self._set_heartbeats()

    async def _look_at_devices(self, device: Device) -> None:
        fastdp = self._options.fastdp
        if await kernel.ensure_devices(device, fastdp=fastdp):
            await self._expose_again()
            self._listening, self._heartbeats = False, set()
        if fastdp and not self._listening:
            self._overlay.devices_made()
            self._listening = True
        self._flood = await kernel.flood()

    async def _set_flood(self, peers: list[str]) -> None:
        now, self._flood = self._flood or [], None
        if set(now) != set(peers):
            await kernel.set_flood(now, peers)
        self._flood = peers

    async def _set_heartbeats(self) -> None:
        """Adds the FDB entry of each peer before anything else uses it, and sends the first
        heartbeat at once."""
        if not self._options.fastdp:
            return
        connections = [one for one in self._mesh.connections.values() if one.secured]
        wanted, now = {(one.peer, one.ip) for one in connections}, self._heartbeats
        if wanted != now:
            self._heartbeats = set()
            await iproute.batch("bridge", dataplane.heartbeat_difference(now, wanted))
            self._heartbeats = wanted
        for connection in connections:
            if not connection.established:
                self._overlay.hail(connection)

    async def _set_sleeve(self, device: Device) -> None:
        """Keeps the veth for datagrams while a peer needs it, and forgets MACs that VXLAN reaches
        now."""
        slow = {one.peer for one in self._mesh.connections.values() if one.way == SLEEVE}
        if not slow and not self._slow:
            return
        for peer in self._slow - slow:
            await kernel.forget_behind_veth(self._overlay.macs.forget(peer))
        if slow and await kernel.ensure_veth(device):
            self._overlay.pcap_made()
        elif not slow:
            self._overlay.pcap_removed()
            await kernel.remove_veth()
        self._slow = slow

    async def _expose_again(self) -> None:
        """Restores the bridge's address, if it had one, after the bridge was recreated."""
        for address in self._allocator.lookup(EXPOSE, self._options.default_subnet):
            await kernel.expose(f"{IPv4Address(address)}/{self._options.default_subnet.prefixlen}")

    def _fast_paths(self) -> list[str]:
        return sorted({one.ip for one in self._mesh.connections.values() if one.way == FASTDP})
