"""calico-node: start-up (address, default pool, tunnel address), install-cni, then Felix: the kernel follows objects.

What it made stays when it ends, so traffic goes on; the next one takes it over.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.calico import dataplane, install, kernel
from components.calico.dataplane import Entries, Node
from components.calico.manifests import GROUP, NAMESPACE, PLUGIN_ACCOUNT
from components.calico.plugin import block, ipam
from components.calico.plugin.datastore import ApiError as DatastoreError
from components.calico.plugin.datastore import Datastore
from components.machinery import kubeconfig
from components.machinery.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from components.machinery.command import CommandError
from components.machinery.events import timestamp
from components.machinery.informer import Informer, wait_synced
from components.machinery.resources import NODES, SERVICEACCOUNTS, KubeObject, Resource

log = logging.getLogger("calico-node")

IPPOOLS = Resource(GROUP, "v1", "ippools", "IPPool", namespaced=False)
IPAMBLOCKS = Resource(GROUP, "v1", "ipamblocks", "IPAMBlock", namespaced=False)
IPAMCONFIGS = Resource(GROUP, "v1", "ipamconfigs", "IPAMConfig", namespaced=False)
FELIXCONFIGURATIONS = Resource(GROUP, "v1", "felixconfigurations", "FelixConfiguration", namespaced=False)
DEFAULT_POOL = "default-ipv4-ippool"
#: What may be otherwise the next time.
_PASSING = (CommandError, TimeoutError, OSError, ApiError, DatastoreError, ipam.NoAddress)
_GATHER, _RETRY, _RESYNC, _TOKEN_SECONDS = 0.05, 5.0, 10.0, 24 * 3600


@dataclass(frozen=True)
class Options:
    """The environment of upstream's DaemonSet, as flags (main.py)."""

    kubeconfig: str
    nodename: str
    interface: str
    pool_cidr: str = "192.168.0.0/16"
    pool_vxlan: str = "Never"
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
        self._applied: Entries | None = None
        self._nat: tuple[str, str] | None = None
        self._device: tuple[Node, int] | None = None
        self._renew_token = 0.0

    async def run(self) -> None:
        """Raises what makes a start impossible: OSError, CommandError."""
        options = self.options
        address, outer_mtu = await kernel.interface(options.interface)
        await _served(self._client)
        await self._ensure_defaults()
        async with asyncio.TaskGroup() as tasks:
            for informer in (self._nodes, self._pools, self._blocks):
                tasks.create_task(informer.run())
            await wait_synced(self._nodes, self._pools, self._blocks)
            store = await self._install_kubeconfig()
            own = await self._started(Node(options.nodename, address), outer_mtu, store)
            self._install_plugins(kernel.mtu_of(outer_mtu, bool(own.tunnel)))
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
                "ipipMode": "Never",
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

    async def _announce(self, own: Node, store: Datastore) -> Node:
        """Annotations of the Node, with a tunnel address when a pool wants one. Waits until it is registered."""
        while (found := self._nodes.get(own.name)) is None:
            self._changed.clear()
            await self._changed.wait()
        if dataplane.wants_tunnel(self._pools.store.values()):
            own = replace(own, tunnel=await self._tunnel_address(found, store))
        wanted = {dataplane.NODE_ADDRESS: own.address} | ({dataplane.TUNNEL_ADDRESS: own.tunnel} if own.tunnel else {})
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

    async def _tunnel_address(self, node: KubeObject, store: Datastore) -> str:
        """The one it has, if it still is its own; else a new one. Upstream's allocate-tunnel-addrs."""
        name, handle = node["metadata"]["name"], f"vxlan-tunnel-addr-{node['metadata']['name']}"
        for one in self._blocks.store.values():
            for address, holder, _ in block.allocations(one):
                if holder == handle and dataplane.vxlan_mode(self._pools.store.values(), address) != "Never":
                    return address

        def assigned() -> str:
            pools = ipam.usable_pools(store, node, [], "Tunnel")
            pools = [pool for pool in pools if (pool["spec"].get("vxlanMode") or "Never") != "Never"]
            return ipam.assign(store, name, pools, handle, {"node": name, "type": "vxlanTunnelAddress"})

        return await asyncio.to_thread(assigned)

    async def _without_tunnel(self, store: Datastore) -> None:
        """No pool wants it any more: device, annotation and address go."""
        await kernel.remove_device()
        await self._patch_status({"metadata": {"annotations": {dataplane.TUNNEL_ADDRESS: None}}})
        await asyncio.to_thread(ipam.release, store, f"vxlan-tunnel-addr-{self.options.nodename}")

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
                if dataplane.wants_tunnel(self._pools.store.values()) != bool(own.tunnel):
                    if own.tunnel:
                        await self._without_tunnel(store)
                    own = await self._announce(replace(own, tunnel=""), store)
                if self.token_is_due():
                    store = await self._install_kubeconfig()
                await self._reconcile(own, outer_mtu)
                await self._release_the_gone(store)
                pause = _RESYNC
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
        if own.tunnel and device != (own, outer_mtu):
            await kernel.ensure_device(own, self.options.interface, kernel.mtu_of(outer_mtu, True))
            applied = None
        if applied is None:
            applied = await kernel.entries(bool(own.tunnel))
        wanted = dataplane.entries(own, self._known_nodes(), pools, self._blocks.store.values(), self.options.interface)
        await kernel.apply(dataplane.difference(applied, wanted))
        rules = dataplane.ipsets(pools), dataplane.chains(pools, bool(own.tunnel))
        if nat != rules or not await kernel.nat_is_there():
            await kernel.apply_nat(*rules)
        self._applied, self._nat, self._device = wanted, rules, (own, outer_mtu)

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
    keys = (dataplane.NODE_ADDRESS, dataplane.TUNNEL_ADDRESS)
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
