"""calico-node: start-up (address, default pool, tunnel address), install-cni, then Felix: the kernel follows objects.

What it made stays when it ends, so traffic goes on; the next one takes it over.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.calico import bird, confd, dataplane, install, kernel, services
from components.calico.dataplane import IPIP, TUNNELS, VXLAN, Entries, Node, Tunnel
from components.calico.manifests import GROUP, NAMESPACE, PLUGIN_ACCOUNT
from components.calico.plugin import block, ipam
from components.calico.plugin.datastore import ApiError as DatastoreError
from components.calico.plugin.datastore import Datastore
from components.machinery import kubeconfig
from components.machinery.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from components.machinery.command import CommandError
from components.machinery.events import timestamp
from components.machinery.informer import Informer, wait_synced
from components.machinery.resources import (
    ENDPOINTSLICES,
    NODES,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    KubeObject,
    Resource,
)

log = logging.getLogger("calico-node")

IPPOOLS = Resource(GROUP, "v1", "ippools", "IPPool", namespaced=False)
IPAMBLOCKS = Resource(GROUP, "v1", "ipamblocks", "IPAMBlock", namespaced=False)
IPAMCONFIGS = Resource(GROUP, "v1", "ipamconfigs", "IPAMConfig", namespaced=False)
FELIXCONFIGURATIONS = Resource(GROUP, "v1", "felixconfigurations", "FelixConfiguration", namespaced=False)
BGPPEERS = Resource(GROUP, "v1", "bgppeers", "BGPPeer", namespaced=False)
BGPCONFIGURATIONS = Resource(GROUP, "v1", "bgpconfigurations", "BGPConfiguration", namespaced=False)
BGPFILTERS = Resource(GROUP, "v1", "bgpfilters", "BGPFilter", namespaced=False)
DEFAULT_POOL = "default-ipv4-ippool"
_BGP = (BGPPEERS, BGPCONFIGURATIONS, BGPFILTERS)
#: What may be otherwise the next time.
_PASSING = (CommandError, TimeoutError, OSError, ApiError, DatastoreError, ipam.NoAddress, bird.NotConfigured)
_GATHER, _RETRY, _RESYNC, _TOKEN_SECONDS = 0.05, 5.0, 10.0, 24 * 3600


@dataclass(frozen=True)
class Options:
    """The environment of upstream's DaemonSet, as flags (main.py)."""

    kubeconfig: str
    nodename: str
    interface: str
    pool_cidr: str = "192.168.0.0/16"
    pool_vxlan: str = "Never"
    pool_ipip: str = "Never"
    with_bird: bool = False
    pool_block_size: int = 26
    pool_nat_outgoing: bool = True
    cni_conf_dir: str = install.DEFAULT_CONF_DIR
    cni_bin_dir: str = install.DEFAULT_BIN_DIR
    nodename_file: str = "/var/lib/calico/nodename"


class Agent:
    """One node's calico-node. run() until cancelled."""

    def __init__(self, options: Options, client: Client) -> None:
        self.options, self._client = options, client
        self._changed = asyncio.Event()
        self._nodes = Informer(client, NODES, handler=self._node_changed, transform=_slim)
        self._pools = Informer(client, IPPOOLS, handler=self._something_changed)
        self._blocks = Informer(client, IPAMBLOCKS, handler=self._something_changed)
        self._bgp = (
            [Informer(client, kind, handler=self._something_changed) for kind in _BGP] if options.with_bird else []
        )
        self._announced_services: list[Informer] = []
        self._applied: Entries | None = None
        self._configured: dict[str, Any] | None = None
        self._nat: tuple[str, str] | None = None
        self._device: tuple[str, str, int] | None = None
        self._renew_token = 0.0

    async def run(self) -> None:
        """Raises what makes a start impossible: OSError, CommandError."""
        options = self.options
        address, outer_mtu = await kernel.interface(options.interface)
        await _served(self._client)
        await self._ensure_defaults()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            informers = [self._nodes, self._pools, self._blocks, *self._bgp]
            for informer in informers:
                tasks.create_task(informer.run())
            await wait_synced(*informers)
            store = await self._install_kubeconfig()
            own = await self._started(Node(options.nodename, address), outer_mtu, store)
            self._install_plugins(kernel.mtu_of(outer_mtu, self._tunnels()))
            await self._set_network_available()
            tasks.create_task(self._follow(own, outer_mtu, store))

    # --- start-up

    async def _ensure_defaults(self) -> None:
        """The objects that the first calico-node makes; who is later finds them."""
        options = self.options
        await _create(
            self._client, FELIXCONFIGURATIONS, "default", {"logSeverityScreen": "Info", "reportingInterval": "0s"}
        )
        await _create(
            self._client,
            IPAMCONFIGS,
            "default",
            {"strictAffinity": False, "autoAllocateBlocks": True, "maxBlocksPerHost": 0},
        )
        if options.pool_cidr and not (await self._client.list(IPPOOLS)).items:
            spec = {
                "cidr": options.pool_cidr,
                "blockSize": options.pool_block_size,
                "ipipMode": options.pool_ipip,
                "vxlanMode": options.pool_vxlan,
                "natOutgoing": options.pool_nat_outgoing,
                "nodeSelector": "all()",
                "allowedUses": ["Workload", "Tunnel"],
            }
            await _create(self._client, IPPOOLS, DEFAULT_POOL, spec)

    async def _install_kubeconfig(self) -> Datastore:
        """The plugin's, with a token of its service account; IPAM of the agent goes the same way."""
        credentials = kubeconfig.load(self.options.kubeconfig)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_SECONDS},
        }
        path = SERVICEACCOUNTS.path(NAMESPACE, PLUGIN_ACCOUNT, "token")
        token = json.loads(await _until_there(lambda: self._client.request("POST", path, body=request)))
        ca = base64.b64encode(credentials.ca).decode()
        text = install.plugin_kubeconfig(credentials.server, ca, token["status"]["token"])
        self._renew_token = time.time() + _TOKEN_SECONDS / 2
        path_of_config = Path(self.options.cni_conf_dir, install.KUBECONFIG_NAME)
        install.replace(path_of_config, text, 0o600)
        nodename = Path(self.options.nodename_file)
        install.replace(nodename, self.options.nodename.encode(), 0o644)
        return Datastore(str(path_of_config))

    def token_is_due(self) -> bool:
        """Half of its time is over, or there is none yet."""
        return time.time() > self._renew_token

    def _install_plugins(self, mtu: int) -> None:
        options = self.options
        install.install_plugins(options.cni_bin_dir)
        text = install.conflist(options.nodename, mtu, options.cni_conf_dir)
        install.replace(Path(options.cni_conf_dir, install.CONFLIST_NAME), text, 0o600)
        log.info("Installed CNI plugins and %s", install.CONFLIST_NAME)

    def _tunnels(self) -> list[Tunnel]:
        """Those that a pool wants."""
        return [tunnel for tunnel in TUNNELS if dataplane.wants(self._pools.store.values(), tunnel)]

    async def _announce(self, own: Node, store: Datastore) -> Node:
        """Annotations of the Node, with an address of every tunnel that a pool wants. Waits until it is registered."""
        while (found := self._nodes.get(own.name)) is None:
            self._changed.clear()
            await self._changed.wait()
        wanted: dict[str, str | None] = {dataplane.NODE_ADDRESS: own.address}
        for tunnel in TUNNELS:
            if tunnel in self._tunnels():
                own = own.with_address(tunnel, await self._tunnel_address(tunnel, found, store))
            elif own.address_in(tunnel):
                await self._without(tunnel, store)
                own = own.with_address(tunnel, "")
            wanted[tunnel.annotation] = own.address_in(tunnel) or None
        current = found["metadata"].get("annotations") or {}
        if any(current.get(key) != value for key, value in wanted.items()):
            await self._patch_status({"metadata": {"annotations": wanted}})
        return own

    async def _started(self, own: Node, outer_mtu: int, store: Datastore) -> Node:
        """Announced, and in the kernel once: what fails is tried again, as Felix does."""
        while True:
            try:
                announced = await self._announce(own, store)
                await self._reconcile(announced, outer_mtu)
                return announced
            except _PASSING as error:
                log.error("%s", error)
            await asyncio.sleep(_GATHER)

    async def _tunnel_address(self, tunnel: Tunnel, node: KubeObject, store: Datastore) -> str:
        """The one it has, if it still is its own; else a new one. Upstream's allocate-tunnel-addrs."""
        name, handle = node["metadata"]["name"], tunnel.handle + node["metadata"]["name"]
        for one in self._blocks.store.values():
            for address, holder, _ in block.allocations(one):
                pool = dataplane.pool_of(self._pools.store.values(), address)
                if holder == handle and pool is not None and dataplane.mode_of(pool, tunnel) != "Never":
                    return address

        def assigned() -> str:
            pools = ipam.usable_pools(store, node, [], "Tunnel")
            pools = [pool for pool in pools if dataplane.mode_of(pool, tunnel) != "Never"]
            return ipam.assign(store, name, pools, handle, {"node": name, "type": tunnel.attribute})

        return await asyncio.to_thread(assigned)

    async def _without(self, tunnel: Tunnel, store: Datastore) -> None:
        """No pool wants it any more: device and address go."""
        await kernel.remove(tunnel)
        await asyncio.to_thread(ipam.release, store, tunnel.handle + self.options.nodename)

    async def _set_network_available(self) -> None:
        now = timestamp()
        condition = {
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "CalicoIsUp",
            "message": "Calico is running on this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        await self._patch_status({"status": {"conditions": [condition]}})

    async def _patch_status(self, patch: KubeObject) -> None:
        async def once() -> Any:
            return await self._client.patch(
                NODES, self.options.nodename, patch, subresource="status", content_type=STRATEGIC_MERGE_PATCH
            )

        await _until_there(once)

    # --- Felix

    def _node_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None or new is None or dataplane.node_of(old) != dataplane.node_of(new):
            self._changed.set()

    def _something_changed(self, _: KubeObject | None, __: KubeObject | None) -> None:
        self._changed.set()

    async def _follow(self, own: Node, outer_mtu: int, store: Datastore) -> None:
        while True:
            self._changed.clear()
            try:
                if {tunnel for tunnel in TUNNELS if own.address_in(tunnel)} != set(self._tunnels()):
                    own = await self._announce(own, store)
                if self.token_is_due():
                    store = await self._install_kubeconfig()
                await self._reconcile(own, outer_mtu)
                await self._release_the_gone(store)
                await self._configure_bird(own)
                pause = _RESYNC
            except bird.NotConfigured as error:
                log.info("%s", error)
                pause = _GATHER
            except _PASSING as error:
                log.error("%s", error)
                pause = _RETRY
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                self._applied = self._nat = self._device = None  # look at the kernel itself again
            await asyncio.sleep(_GATHER)

    async def _reconcile(self, own: Node, outer_mtu: int) -> None:
        """Raises CommandError, TimeoutError; the kernel is read again after one."""
        pools = sorted(self._pools.store.values(), key=lambda pool: str(pool["metadata"]["name"]))
        applied, nat, device = self._applied, self._nat, self._device
        self._applied = self._nat = self._device = None
        if device != (own.tunnel, own.ipip, outer_mtu):
            if own.tunnel:
                await kernel.ensure_device(own, self.options.interface, outer_mtu - VXLAN.overhead)
            if own.ipip:
                await kernel.ensure_ipip(own, outer_mtu - IPIP.overhead)
            applied = None
        if applied is None:
            applied = await kernel.entries(bool(own.tunnel))
        wanted = dataplane.entries(own, self._known_nodes(), pools, self._blocks.store.values(), self.options.interface)
        await kernel.apply(dataplane.difference(applied, wanted))
        rules = dataplane.ipsets(pools), dataplane.chains(pools, self._tunnels())
        if nat != rules or not await kernel.nat_is_there():
            await kernel.apply_nat(*rules)
        self._applied, self._nat, self._device = wanted, rules, (own.tunnel, own.ipip, outer_mtu)

    async def _configure_bird(self, own: Node) -> None:
        """confd's part. Raises NotConfigured, to be tried again, OSError, ApiError."""
        if not self.options.with_bird:
            return
        peers, configurations, filters = self._bgp
        found = configurations.get("default")
        configuration = (found or {}).get("spec") or {}
        nodes = self._known_nodes()
        document = confd.render(
            confd.State(
                own=nodes.get(own.name, own),
                nodes=nodes,
                pools=list(self._pools.store.values()),
                blocks=list(self._blocks.store.values()),
                peers=list(peers.store.values()),
                filters={one["metadata"]["name"]: one for one in filters.store.values()},
                configuration=configuration,
                secrets=await self._passwords([configuration, *(peer["spec"] for peer in peers.store.values())]),
                services=await self._services(configuration, nodes.get(own.name, own)),
            )
        )
        if document != self._configured:
            self._configured = None
            await bird.configure(document)
            self._configured = document

    async def _passwords(self, specs: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
        """Of the Secrets in kube-system that are named; one that is not there is left out."""
        found: dict[tuple[str, str], str] = {}
        for spec in specs:
            reference = ((spec.get("password") or spec.get("nodeMeshPassword")) or {}).get("secretKeyRef")
            if not reference:
                continue
            try:
                secret = await self._client.get(SECRETS, reference["name"], NAMESPACE)
            except ApiError as error:
                if error.status != 404:
                    raise
                continue
            if text := (secret.get("data") or {}).get(reference["key"]):
                found[reference["name"], reference["key"]] = base64.b64decode(text).decode()
        return found

    async def _services(self, configuration: Mapping[str, Any], own: Node) -> list[str]:
        """Services and their endpoints are watched from when they are first announced."""
        if not services.wanted(configuration):
            return []
        if not self._announced_services:
            self._announced_services = [
                Informer(self._client, kind, handler=self._something_changed) for kind in (SERVICES, ENDPOINTSLICES)
            ]
            for informer in self._announced_services:
                self._tasks.create_task(informer.run())
        await wait_synced(*self._announced_services)
        all_services, slices = (list(informer.store.values()) for informer in self._announced_services)
        return services.announced(configuration, all_services, slices, own.name, dict(own.labels))

    def _known_nodes(self) -> Mapping[str, Node]:
        known = (dataplane.node_of(obj) for obj in self._nodes.store.values())
        return {node.name: node for node in known if node is not None}

    async def _release_the_gone(self, store: Datastore) -> None:
        """What nodes have that are no more (calico-kube-controllers' part): the first node by name does it."""
        names = {obj["metadata"]["name"] for obj in self._nodes.store.values()}
        if self.options.nodename != min(names, default=""):
            return
        gone = {
            holder
            for one in self._blocks.store.values()
            for _, holder in dataplane.owned([one])
            if holder and holder not in names
        }
        for name in sorted(gone):
            log.info("Node %s is gone, releasing its addresses", name)
            await asyncio.to_thread(release_node, store, name)


def release_node(store: Datastore, node: str) -> None:
    """All addresses of a node, its empty blocks and its affinities. Raises DatastoreError."""
    for one in store.list(ipam.BLOCKS):
        for _, handle, attributes in block.allocations(one):
            if attributes.get("node") == node:
                ipam.release(store, handle)
    for one in store.list(ipam.BLOCKS):
        if block.host(one) == node:
            if block.is_empty(one):
                store.delete(ipam.BLOCKS, one)
            else:
                one["spec"]["affinity"] = None
                store.update(ipam.BLOCKS, {**one, "spec": {k: v for k, v in one["spec"].items() if v is not None}})
    for affinity in store.list(ipam.AFFINITIES):
        if affinity["spec"]["node"] == node:
            store.delete(ipam.AFFINITIES, affinity)


def _slim(node: KubeObject) -> KubeObject:
    """What of a Node is looked at here."""
    metadata = node["metadata"]
    keys = (
        dataplane.NODE_ADDRESS,
        *(tunnel.annotation for tunnel in TUNNELS),
        dataplane.AS_NUMBER,
        dataplane.CLUSTER_ID,
    )
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key in keys}
    kept = {key: metadata[key] for key in ("name", "uid", "resourceVersion", "labels") if key in metadata}
    return {"metadata": kept | {"annotations": annotations}}


async def _served(client: Client) -> None:
    """Until the CustomResources of Calico can be listed."""
    for resource in (IPPOOLS, IPAMBLOCKS, IPAMCONFIGS, FELIXCONFIGURATIONS):
        await _until_there(lambda resource=resource: client.list(resource))  # type: ignore[misc]


async def _until_there(ask: Callable[[], Any]) -> Any:
    """What it answers, as soon as it does: an API server that is not there yet, or does not know the kind, is waited
    for."""
    delay = 0.02
    while True:
        try:
            return await ask()
        except ApiError as error:
            log.debug("%s", error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, _RETRY)


async def _create(client: Client, resource: Resource, name: str, spec: Mapping[str, Any]) -> None:
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": dict(spec)}
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
