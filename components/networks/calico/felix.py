"""Felix's part: makes the kernel of one node follow nodes, pools and blocks, for one IP version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubewire.components.kernel import forwarding, ipset, iptables
from kubewire.components.kernel.forwarding import Forwarding
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.networks.calico import dataplane, kernel
from kubewire.components.networks.calico.dataplane import IPIP, Node, Settings, Tunnel


class Felix:
    """own is replaced when the node's tunnel addresses change."""

    def __init__(self, own: Node, interface: str, outer_mtu: int) -> None:
        self.own = own
        self._interface = interface
        self._outer_mtu = outer_mtu
        self._applied: Forwarding | None = None
        self._sets: str | None = None
        self._devices: tuple[str, str, Settings] | None = None

    def forget_applied(self) -> None:
        """Makes the next reconcile() read the kernel, because another program may have changed
        it."""
        self._applied = self._sets = self._devices = None

    def tunnels(self, pools: Iterable[KubeObject]) -> list[Tunnel]:
        """The tunnels that a pool uses."""
        return [tunnel for tunnel in self.own.family.tunnels if dataplane.wants(pools, tunnel)]

    async def reconcile(
        self,
        nodes: Mapping[str, Node],
        pools: Sequence[KubeObject],
        blocks: Iterable[KubeObject],
        settings: Settings,
    ) -> None:
        """Raises CommandError and TimeoutError; after an error the kernel is read again."""
        own = self.own
        family = self.own.family
        pools = sorted(pools, key=lambda pool: str(pool["metadata"]["name"]))
        applied = self._applied
        sets = self._sets
        devices = self._devices
        self.forget_applied()
        if devices != (own.tunnel, own.ipip, settings):
            if own.tunnel:
                mtu = settings.mtu(family.vxlan, self._outer_mtu)
                await kernel.ensure_device(own, self._interface, mtu, settings)
            if own.ipip:
                await kernel.ensure_ipip(own, settings.mtu(IPIP, self._outer_mtu))
            applied = None
        if applied is None:
            applied = await kernel.entries(family, bool(own.tunnel))
        wanted = dataplane.entries(own, nodes, pools, blocks, self._interface)
        await forwarding.apply(forwarding.difference(applied, wanted))
        if sets != (wanted_sets := dataplane.ipsets(pools, family)):
            await ipset.restore(wanted_sets)
        await iptables.ensure(dataplane.rules(pools, self.tunnels(pools), family), family.version)
        self._applied = wanted
        self._sets = wanted_sets
        self._devices = (own.tunnel, own.ipip, settings)
