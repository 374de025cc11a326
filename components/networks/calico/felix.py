"""Felix's part: the kernel of one node follows nodes, pools and blocks, for one IP version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubewire.components.kernel import forwarding, ipset, iptables
from kubewire.components.kernel.forwarding import Forwarding
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.networks.calico import dataplane, kernel
from kubewire.components.networks.calico.dataplane import IPIP, Node, Settings, Tunnel


class Felix:
    """own changes when its tunnels do."""

    def __init__(self, own: Node, interface: str, outer_mtu: int) -> None:
        self.own = own
        self._interface = interface
        self._outer_mtu = outer_mtu
        self._applied: Forwarding | None = None
        self._sets: str | None = None
        self._devices: tuple[str, str, Settings] | None = None

    def look_again(self) -> None:
        """Forget what was applied: the kernel itself is read the next time."""
        self._applied = self._sets = self._devices = None

    def tunnels(self, pools: Iterable[KubeObject]) -> list[Tunnel]:
        """Those that a pool wants."""
        return [tunnel for tunnel in self.own.family.tunnels if dataplane.wants(pools, tunnel)]

    async def reconcile(
        self,
        nodes: Mapping[str, Node],
        pools: Sequence[KubeObject],
        blocks: Iterable[KubeObject],
        settings: Settings,
    ) -> None:
        """Raises CommandError, TimeoutError; the kernel is read again after one."""
        own = self.own
        family = self.own.family
        pools = sorted(pools, key=lambda pool: str(pool["metadata"]["name"]))
        applied = self._applied
        sets = self._sets
        devices = self._devices
        self.look_again()
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
