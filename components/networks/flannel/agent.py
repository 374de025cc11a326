"""flanneld: the agent of one node.

It starts in this order: interface, podCIDR, backend, iptables, announcement, subnet.env, CNI files.
Then it follows the Node objects and keeps the kernel's entries equal to them. The order is a
promise: the CNI configuration comes last, so the kubelet reports the node as Ready only when a pod
can be connected.

Routes, devices and rules stay when flanneld ends, so traffic continues; the next flanneld takes
them over.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from typing import Any

from kubewire.components.base import health
from kubewire.components.base.retrying import GrowingDelay
from kubewire.components.kernel import files, forwarding, iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.forwarding import Forwarding, difference
from kubewire.components.kernel.iptables import Ruleset
from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.nodeconditions import network_available
from kubewire.components.kubeapi.resources import NODES, KubeObject
from kubewire.components.networks.flannel import (
    backend,
    install,
    kernel,
    lease,
    netconf,
    rules,
    subnetfile,
)
from kubewire.components.networks.flannel.backend import HostGateway, Vxlan
from kubewire.components.networks.flannel.device import Link
from kubewire.components.networks.flannel.drift import Watch
from kubewire.components.networks.flannel.lease import Annotations, Lease
from kubewire.components.networks.flannel.netconf import NetConf, Network
from kubewire.components.networks.flannel.options import Options

log = logging.getLogger("flanneld")

#: Seconds. Node events within _GATHER become one batch; a check for drift follows _SETTLE after its
#: last sign.
_GATHER = 0.05
_SETTLE = 1.0
_RETRY = 5.0


class SubnetError(Exception):
    """The node's podCIDR does not fit the flannel network. The text is upstream's."""


class SubnetsChanged(Exception):
    """The node was registered again and has other podCIDRs, so that all starts again with them."""


Overlays = Sequence[HostGateway | Vxlan]


def checked_subnet(subnet: Network, conf: NetConf, node: str) -> Network:
    """Raises SubnetError."""
    network = conf.network(subnet.version)
    if network is None:
        raise SubnetError(
            f'failed to acquire lease: subnet "{subnet}" specified in the PodCIDR, but doesn\'t exist in the flannel '
            f'net config of the "{node}" node',
        )
    if not kernel.within(subnet, network):
        which = "PodCIDR" if subnet.version == 4 else "IPv6 PodCIDR"
        raise SubnetError(
            f'failed to acquire lease: subnet "{network}" specified in the flannel net config doesn\'t contain '
            f'"{subnet}" {which} of the "{node}" node',
        )
    return subnet


class Agent:
    """One run of flanneld against one API server."""

    def __init__(self, options: Options, conf: NetConf, client: Client) -> None:
        self.options = options
        self.conf = conf
        self._client = client
        self._keys = Annotations(options.annotation_prefix)
        self._nodes: Informer[Any] = Informer(
            client, NODES, handler=self._node_changed, transform=lease.slim
        )
        self._own_changed = asyncio.Event()
        self._leases_changed = asyncio.Event()
        self._dirty = False
        self._settling: asyncio.TimerHandle | None = None
        self._applied: Forwarding | None = None
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled. Raises LinkError, SubnetError or CommandError if the agent cannot
        start."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nodes.run())
            tasks.create_task(self._serve())

    async def _serve(self) -> None:
        links = await self._outer_links()
        subnets = await self._acquire_subnets()
        while True:
            try:
                await self._serve_subnets(links, subnets)
            except* SubnetsChanged:
                pass
            left = subnets
            subnets = await self._acquire_subnets()
            log.info("the podCIDR changed from %s to %s", _texts(left), _texts(subnets))
            await kernel.leave_bridge(self._bridge(), left)
            self._applied = None

    def _bridge(self) -> str:
        """The bridge of the pods, which the CNI plugin makes."""
        return install.bridge(install.conflist(self.options.cni_conf_path))

    async def _serve_subnets(self, links: Sequence[Link], subnets: Sequence[Network]) -> None:
        """Serves until cancelled. Raises SubnetsChanged in a group."""
        own = self._nodes.get(self.options.node_name) or {"metadata": {}}
        overlays = []
        for link, subnet in zip(links, subnets, strict=True):
            mac = lease.stored_mac(own, self._keys, subnet.version)
            overlays.append(await backend.create(self.conf, link, subnet, stored_mac=mac))
            await overlays[-1].prepare()
        await self._ensure_iptables(subnets)
        await self._announce(overlays)
        ranges = zip(self.conf.networks, subnets, strict=True)
        text = subnetfile.render(
            ranges,
            min(overlay.mtu for overlay in overlays),
            self.options.ip_masq,
        )
        files.replace(self.options.subnet_file, text.encode())
        install.install_plugin(self.options.cni_bin_dir)
        install.install_conflist(
            install.conflist(self.options.cni_conf_path),
            self.options.cni_conf_dir,
        )
        log.info("Wrote subnet file to %s", self.options.subnet_file)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_nodes(overlays))
            tasks.create_task(self._keep_announced(overlays, subnets))
            again = functools.partial(self._ensure_iptables, subnets)
            tasks.create_task(iptables.keep(again, self.options.iptables_resync))
            await self._set_network_available()
            log.info("Running backend.")

    async def _outer_links(self) -> list[Link]:
        """The outer interface once for each enabled family."""
        options = self.options
        first = self.conf.networks[0].version
        links = [
            await kernel.outer_link(
                options.iface,
                options.iface_regex,
                options.iface_can_reach,
                first,
            )
        ]
        for network in self.conf.networks[1:]:
            links.append(await kernel.outer_link((links[0].name,), version=network.version))
        for link in links:
            log.info("Using interface with name %s and address %s", link.name, link.address)
        if self.conf.backend_type == "host-gw" and options.public_ip not in (
            "",
            str(links[0].address),
        ):
            raise kernel.LinkError(
                "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not "
                "supported by host-gw backend",
            )
        return links

    async def _acquire_subnets(self) -> list[Network]:
        """Waits until the node is registered and has a podCIDR for each of flannel's networks.

        Raises SubnetError.
        """
        name = self.options.node_name
        told = False
        while True:
            self._own_changed.clear()
            subnets = self._given_subnets()
            if len(subnets) == len(self.conf.networks):
                return subnets
            if not told and self._nodes.synced.is_set():
                log.info('node "%s" pod cidr not assigned; waiting for it', name)
                told = True
            await self._own_changed.wait()

    def _given_subnets(self) -> list[Network]:
        """The node's podCIDRs, checked. There are fewer than networks until all are assigned.
        Raises SubnetError."""
        name = self.options.node_name
        node = self._nodes.get(name)
        given = [lease.pod_cidr(node, version) for version in (4, 6)] if node else []
        return [checked_subnet(subnet, self.conf, name) for subnet in given if subnet is not None]

    def _node_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        node = new or old or {}
        if node["metadata"]["name"] == self.options.node_name:
            self._own_changed.set()
        elif old is None or new is None or _relevant(old) != _relevant(new):
            self._leases_changed.set()

    def leases(self) -> list[Lease]:
        """The leases of all families."""
        leases: list[Lease] = []
        for node in self._nodes.store.values():
            try:
                entries = [
                    lease.lease_of(node, self._keys, network.version)
                    for network in self.conf.networks
                ]
            except ValueError as error:
                log.info("Error turning node %r to lease: %s", node["metadata"]["name"], error)
                continue
            leases += [entry for entry in entries if entry is not None]
        return leases

    async def _announce(self, overlays: Overlays) -> None:
        """Writes this node's annotations if they differ. Raises ApiError."""
        node = self._nodes.get(self.options.node_name)
        if node is None:
            return
        current = lease.annotations_of(node)
        given = {4: self.options.public_ip, 6: self.options.public_ipv6}
        members = [backend.member(overlay, given[overlay.network.version]) for overlay in overlays]
        wanted = lease.wanted_annotations(self._keys, current, self.conf.backend_type, members)
        if any(current.get(key) != value for key, value in wanted.items()):
            await self._patch_status({"metadata": {"annotations": wanted}})

    async def _set_network_available(self) -> None:
        if not self.options.set_node_network_unavailable:
            return
        await self._patch_status(
            network_available("FlannelIsUp", "Flannel is running on this node")
        )

    async def _patch_status(self, patch: KubeObject) -> None:
        """Retries until the API server accepts the patch: flanneld survives the API server's
        restarts."""
        delay = GrowingDelay(0.1, _RETRY)
        while True:
            try:
                await self._client.patch(
                    NODES,
                    self.options.node_name,
                    patch,
                    subresource="status",
                    content_type=STRATEGIC_MERGE_PATCH,
                )
                return
            except ApiError as error:
                log.warning("failed to patch node %s: %s", self.options.node_name, error)
                if error.status == 404:
                    return
            await delay.sleep()

    async def _keep_announced(self, overlays: Overlays, subnets: Sequence[Network]) -> None:
        """Annotates a Node object that was deleted and registered again.

        Such a Node may have other podCIDRs; they are followed (SubnetsChanged). Annotations that an
        administrator edits stay as they are: upstream also restores them only at its next start.
        """
        node = self._nodes.get(self.options.node_name)
        uid = node["metadata"].get("uid") if node else None
        while True:
            await self._own_changed.wait()
            self._own_changed.clear()
            node = self._nodes.get(self.options.node_name)
            if node is None or node["metadata"].get("uid") == uid:
                continue
            given = self._given_subnets()
            if len(given) < len(self.conf.networks):
                continue  # the IPAM controller has not assigned them yet
            if list(given) != list(subnets):
                raise SubnetsChanged
            uid = node["metadata"].get("uid")
            await self._announce(overlays)
            await self._set_network_available()

    async def _follow_nodes(self, overlays: Overlays) -> None:
        watch = Watch(self._drifted, [overlay.network.version for overlay in overlays])
        devices = [overlay.overlay for overlay in overlays]
        watch.follow(devices)
        watch.start()
        try:
            while True:
                self._leases_changed.clear()
                if not await self.reconcile(overlays):
                    asyncio.get_running_loop().call_later(_RETRY, self._look)
                watch.follow(devices)
                self.ready.set()
                await self._leases_changed.wait()
                await asyncio.sleep(_GATHER)
        finally:
            watch.close()
            if self._settling:
                self._settling.cancel()

    def _drifted(self) -> None:
        """The agent's own changes are notified too, so one check follows when no more notifications
        arrive."""
        if self._settling:
            self._settling.cancel()
        self._settling = asyncio.get_running_loop().call_later(_SETTLE, self._look)

    def _look(self) -> None:
        self._dirty = True
        self._leases_changed.set()

    async def reconcile(self, overlays: Overlays) -> bool:
        """Makes the kernel's entries equal to the leases. Returns False if that failed and must be
        retried.

        The kernel is read at the start and after possible drift. Otherwise the last applied state
        is known, and a change of one node costs one or two short processes.
        """
        try:
            if self._dirty or self._applied is None:
                self._dirty = False
                self._applied = await self._now(overlays)
            wanted = self._desired(overlays)
            await forwarding.apply(difference(self._applied, wanted))
            self._applied = wanted
        except (CommandError, TimeoutError) as error:
            log.error("%s", error)
            self._applied = None
            return False
        return True

    async def _now(self, overlays: Overlays) -> Forwarding:
        """Prepares the devices and reads the kernel's entries."""
        present = Forwarding()
        for overlay in overlays:
            await overlay.prepare()
            present |= await kernel.forwarding(
                overlay.network,
                outer=overlay.link.name,
                overlay=overlay.overlay,
            )
        return present

    def _desired(self, overlays: Overlays) -> Forwarding:
        leases = self.leases()
        wanted = Forwarding()
        for overlay in overlays:
            family = [lease for lease in leases if lease.subnet.version == overlay.network.version]
            wanted |= overlay.desired(family, self.options.node_name)
        return wanted

    async def _ensure_iptables(self, subnets: Sequence[Network]) -> None:
        for network, subnet in zip(self.conf.networks, subnets, strict=True):
            wanted = Ruleset()
            if self.options.ip_masq:
                random_fully = self.options.ip_masq_random_fully
                wanted |= rules.masquerade(network, subnet, random_fully=random_fully)
            if self.options.iptables_forward_rules:
                wanted |= rules.forward(network)
            if wanted.chains:
                try:
                    await iptables.ensure(wanted, network.version)
                except (CommandError, TimeoutError) as error:
                    log.error("Failed to ensure iptables rules: %s", error)


def _texts(subnets: Sequence[Network]) -> str:
    return ", ".join(map(str, subnets))


def _relevant(node: KubeObject) -> tuple[object, object]:
    return lease.annotations_of(node), node.get("spec")


async def healthz(host: str, port: int) -> asyncio.Server:
    """Answers 200 to GET /healthz while the process runs, as upstream does."""
    page = health.Page(b"flanneld is running")
    return await health.serve_pages({"/healthz": lambda: page}, host, port, log)


async def start(options: Options) -> None:
    """Runs the whole agent. Raises NetConfError, KubeconfigError and the errors of Agent.run."""
    conf = netconf.load(options.net_config_path)
    client = (
        Client.from_kubeconfig(options.kubeconfig_file, user_agent="flanneld")
        if options.kubeconfig_file
        else Client.in_cluster(user_agent="flanneld")
    )
    server = (
        await healthz(options.healthz_ip, options.healthz_port) if options.healthz_port else None
    )
    try:
        async with client:
            await Agent(options, conf, client).run()
    finally:
        if server:
            server.close()
