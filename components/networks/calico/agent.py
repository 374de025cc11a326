"""calico-node, the agent of one node.

It starts in this order: the node's address, the default pool, the tunnel addresses, install-cni.
Then its Felix part makes the kernel follow the API objects, and its confd part makes BIRD follow
them. The CNI files come after the first run of Felix, so that the kubelet connects no pod before
the node can reach the others.

Devices, routes and rules stay when calico-node ends, so traffic continues; the next calico-node
takes them over.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from kubewire.components.base.retrying import GrowingDelay, until_answered
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.files import replace
from kubewire.components.kubeapi import kubeconfig
from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.nodeconditions import network_available
from kubewire.components.kubeapi.resources import NODES, SERVICEACCOUNTS, KubeObject, Resource
from kubewire.components.networks.calico import bird, dataplane, install, kernel
from kubewire.components.networks.calico.dataplane import FAMILIES, Family, Node, Settings, Tunnel
from kubewire.components.networks.calico.felix import Felix
from kubewire.components.networks.calico.manifests import GROUP, NAMESPACE, PLUGIN_ACCOUNT
from kubewire.components.networks.calico.peering import Peering
from kubewire.components.networks.calico.plugin import block, ipam
from kubewire.components.networks.calico.plugin.datastore import ApiError as DatastoreError
from kubewire.components.networks.calico.plugin.datastore import Datastore

log = logging.getLogger("calico-node")

IPPOOLS: Resource[KubeObject] = Resource(GROUP, "v1", "ippools", "IPPool", namespaced=False)
IPAMBLOCKS: Resource[KubeObject] = Resource(
    GROUP, "v1", "ipamblocks", "IPAMBlock", namespaced=False
)
IPAMCONFIGS: Resource[KubeObject] = Resource(
    GROUP, "v1", "ipamconfigs", "IPAMConfig", namespaced=False
)
FELIXCONFIGURATIONS: Resource[KubeObject] = Resource(
    GROUP,
    "v1",
    "felixconfigurations",
    "FelixConfiguration",
    namespaced=False,
)
DEFAULT_POOL = "default-ipv{}-ippool"
#: Errors that a retry may clear.
_TRANSIENT = (
    CommandError,
    TimeoutError,
    OSError,
    ApiError,
    DatastoreError,
    ipam.NoAddress,
    bird.NotConfigured,
    bird.Refused,
    dataplane.Unreadable,
)
_GATHER = 0.05
_RETRY = 5.0
_RESYNC = 10.0
_TOKEN_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Pool:
    """The settings of an IP version's first pool."""

    cidr: str
    block_size: int
    vxlan: str = "Never"
    ipip: str = "Never"
    nat_outgoing: bool = True

    @property
    def version(self) -> int:
        return 6 if block.is_ipv6(self.cidr) else 4


@dataclass(frozen=True)
class Options:
    """The environment variables of upstream's DaemonSet, as flags (main.py)."""

    kubeconfig: str
    nodename: str
    interface: str
    pools: tuple[Pool, ...] = ()
    with_bird: bool = False
    cni_conf_dir: str = install.DEFAULT_CONF_DIR
    cni_bin_dir: str = install.DEFAULT_BIN_DIR
    nodename_file: str = "/var/lib/calico/nodename"


class Agent:
    """The calico-node of one node. run() returns only when it is cancelled."""

    def __init__(self, options: Options, client: Client) -> None:
        self.options = options
        self._client = client
        self._changed = asyncio.Event()
        self._nodes: Informer[Any] = Informer(
            client, NODES, handler=self._node_changed, transform=_slim
        )
        self._pools = Informer(client, IPPOOLS, handler=self._pool_changed)
        self._blocks = Informer(client, IPAMBLOCKS, handler=self._something_changed)
        self._configurations = Informer(
            client,
            FELIXCONFIGURATIONS,
            handler=self._something_changed,
        )
        self._peering = Peering(client, self._something_changed) if options.with_bird else None
        self._felixes: list[Felix] = []
        self._renew_token = 0.0

    async def run(self) -> None:
        """Raises OSError or CommandError if the agent cannot start."""
        options = self.options
        self._felixes = [felix for family in FAMILIES if (felix := await self._felix(family))]
        if not self._felixes:
            raise OSError(
                f"Unable to auto-detect an IP address: {options.interface} has none that a pool is for",
            )
        await _wait_until_served(self._client)
        await self._ensure_defaults()
        async with asyncio.TaskGroup() as tasks:
            informers = [self._nodes, self._pools, self._blocks, self._configurations]
            for informer in informers:
                tasks.create_task(informer.run())
            await wait_synced(*informers)
            if self._peering:
                await self._peering.start(tasks)
            store = await self._install_kubeconfig()
            await self._started(store)
            _, outer_mtu = await kernel.interface(options.interface, 4)
            self._install_plugins(kernel.mtu_of(outer_mtu, self._tunnels()))
            await self._set_network_available()
            tasks.create_task(self._follow(store))

    async def _felix(self, family: Family) -> Felix | None:
        """The Felix of a family, or None if it has no pool or the interface has no address of
        it."""
        interface = self.options.interface
        address, mtu = await kernel.interface(interface, family.version)
        if not address or not any(pool.version == family.version for pool in self.options.pools):
            return None
        return Felix(Node(self.options.nodename, address), interface, mtu)

    async def _ensure_defaults(self) -> None:
        """Creates the objects that the first calico-node creates; later ones find them."""
        options = self.options
        await _create(
            self._client,
            FELIXCONFIGURATIONS,
            "default",
            {"logSeverityScreen": "Info", "reportingInterval": "0s"},
        )
        ipam = {"strictAffinity": False, "autoAllocateBlocks": True, "maxBlocksPerHost": 0}
        # calico-node may not list these, so this is also how it waits until they are served.
        await _retry_until_available(lambda: _create(self._client, IPAMCONFIGS, "default", ipam))
        known = [pool["spec"]["cidr"] for pool in (await self._client.list(IPPOOLS)).items]
        for pool in options.pools:
            if any(block.is_ipv6(cidr) == (pool.version == 6) for cidr in known):
                continue
            spec = {
                "cidr": pool.cidr,
                "blockSize": pool.block_size,
                "ipipMode": pool.ipip,
                "vxlanMode": pool.vxlan,
                "natOutgoing": pool.nat_outgoing,
                "nodeSelector": "all()",
                "allowedUses": ["Workload", "Tunnel"],
            }
            await _create(self._client, IPPOOLS, DEFAULT_POOL.format(pool.version), spec)

    async def _install_kubeconfig(self) -> Datastore:
        """Writes the plugin's kubeconfig with a token of its service account. The agent's own IPAM
        uses it too."""
        credentials = kubeconfig.load(self.options.kubeconfig)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_SECONDS},
        }
        path = SERVICEACCOUNTS.path(NAMESPACE, PLUGIN_ACCOUNT, "token")
        token = json.loads(
            await _retry_until_available(lambda: self._client.request("POST", path, body=request)),
        )
        ca = base64.b64encode(credentials.ca).decode()
        text = install.plugin_kubeconfig(credentials.server, ca, token["status"]["token"])
        self._renew_token = time.time() + _TOKEN_SECONDS / 2
        path_of_config = Path(self.options.cni_conf_dir, install.KUBECONFIG_NAME)
        replace(path_of_config, text, 0o600)
        nodename = Path(self.options.nodename_file)
        replace(nodename, self.options.nodename.encode(), 0o644)
        return Datastore(str(path_of_config))

    def token_is_due(self) -> bool:
        """True if half of the token's lifetime is over, or there is no token yet."""
        return time.time() > self._renew_token

    def _install_plugins(self, mtu: int) -> None:
        options = self.options
        install.install_plugins(options.cni_bin_dir)
        versions = [felix.own.family.version for felix in self._felixes]
        text = install.conflist(options.nodename, mtu, versions, options.cni_conf_dir)
        replace(Path(options.cni_conf_dir, install.CONFLIST_NAME), text, 0o600)
        log.info("Installed CNI plugins and %s", install.CONFLIST_NAME)

    def _tunnels(self) -> list[Tunnel]:
        """The tunnels that a pool uses."""
        return [tunnel for felix in self._felixes for tunnel in felix.tunnels(self._usable_pools())]

    async def _announce(self, store: Datastore) -> None:
        """Writes the Node's annotations, with an address for every tunnel that a pool uses. Waits
        until the node is registered."""
        while (node := self._nodes.get(self.options.nodename)) is None:
            self._changed.clear()
            await self._changed.wait()
        wanted: dict[str, str | None] = {}
        for felix in self._felixes:
            wanted[felix.own.family.annotation] = felix.own.address
            for tunnel in felix.own.family.tunnels:
                if tunnel in self._tunnels():
                    address = await self._tunnel_address(tunnel, felix.own.family, node, store)
                    felix.own = felix.own.with_address(tunnel, address)
                elif felix.own.address_in(tunnel):
                    await self._remove_tunnel(tunnel, store)
                    felix.own = felix.own.with_address(tunnel, "")
                wanted[tunnel.annotation] = felix.own.address_in(tunnel) or None
        current = node["metadata"].get("annotations") or {}
        if any(current.get(key) != value for key, value in wanted.items()):
            await self._patch_status({"metadata": {"annotations": wanted}})

    async def _started(self, store: Datastore) -> None:
        """Announces the node and configures the kernel once; retries after errors, as Felix
        does."""
        while True:
            try:
                await self._announce(store)
                await self._reconcile()
                return
            except _TRANSIENT as error:
                log.error("%s", error)
            await asyncio.sleep(_GATHER)

    async def _tunnel_address(
        self, tunnel: Tunnel, family: Family, node: KubeObject, store: Datastore
    ) -> str:
        """The node's present tunnel address if a pool still allows it, else a new one (upstream's
        allocate-tunnel-addrs)."""
        name = node["metadata"]["name"]
        handle = tunnel.handle + node["metadata"]["name"]
        for ipam_block in self._blocks.store.values():
            for address, holder, _ in block.allocations(ipam_block):
                pool = dataplane.pool_of(self._usable_pools(), address)
                if (
                    holder == handle
                    and pool is not None
                    and dataplane.mode_of(pool, tunnel) != "Never"
                ):
                    return address

        def assigned() -> str:
            pools = ipam.usable_pools(store, node, [], "Tunnel", family.version)
            pools = [pool for pool in pools if dataplane.mode_of(pool, tunnel) != "Never"]
            return ipam.assign(store, name, pools, handle, {"node": name, "type": tunnel.attribute})

        return await asyncio.to_thread(assigned)

    async def _remove_tunnel(self, tunnel: Tunnel, store: Datastore) -> None:
        """Removes the device and releases its address, because no pool uses the tunnel any more."""
        await kernel.remove(tunnel)
        await asyncio.to_thread(ipam.release, store, tunnel.handle + self.options.nodename)

    async def _set_network_available(self) -> None:
        await self._patch_status(network_available("CalicoIsUp", "Calico is running on this node"))

    async def _patch_status(self, patch: KubeObject) -> None:
        async def once() -> Any:
            return await self._client.patch(
                NODES,
                self.options.nodename,
                patch,
                subresource="status",
                content_type=STRATEGIC_MERGE_PATCH,
            )

        await _retry_until_available(once)

    def _node_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        both = (old, new)
        known = [[node and dataplane.node_of(node, family) for family in FAMILIES] for node in both]
        if None in both or known[0] != known[1]:
            self._changed.set()

    def _something_changed(self, _: KubeObject | None, __: KubeObject | None) -> None:
        self._changed.set()

    def _pool_changed(self, _: KubeObject | None, pool: KubeObject | None) -> None:
        if pool and not dataplane.usable([pool]):
            log.error(
                "IPPool %s: spec.cidr %r is not a network; the pool is ignored",
                pool["metadata"]["name"],
                pool["spec"]["cidr"],
            )
        self._changed.set()

    def _usable_pools(self) -> list[KubeObject]:
        return dataplane.usable(self._pools.store.values())

    async def _follow(self, store: Datastore) -> None:
        while True:
            self._changed.clear()
            try:
                if self._held_tunnels() != set(self._tunnels()):
                    await self._announce(store)
                if self.token_is_due():
                    store = await self._install_kubeconfig()
                await self._reconcile()
                await self._release_the_gone(store)
                await self._configure_bird()
                pause = _RESYNC
            except bird.NotConfigured as error:
                log.info("%s", error)
                pause = _GATHER
            except _TRANSIENT as error:
                log.error("%s", error)
                pause = _RETRY
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                for felix in self._felixes:
                    felix.forget_applied()
            await asyncio.sleep(_GATHER)

    def _held_tunnels(self) -> set[Tunnel]:
        return {
            tunnel
            for felix in self._felixes
            for tunnel in felix.own.family.tunnels
            if felix.own.address_in(tunnel)
        }

    async def _reconcile(self) -> None:
        """Raises CommandError, TimeoutError."""
        configuration = self._configurations.get("default")
        settings = Settings.of((configuration or {}).get("spec") or {})
        for felix in self._felixes:
            nodes = self._known_nodes(felix.own.family)
            await felix.reconcile(
                nodes,
                self._usable_pools(),
                self._blocks.store.values(),
                settings,
            )

    async def _configure_bird(self) -> None:
        """Raises NotConfigured, Refused and Unreadable, which a retry may clear, OSError and
        ApiError."""
        if self._peering is None:
            return
        router_id = _router_id(self.options.nodename, [felix.own for felix in self._felixes])
        for felix in self._felixes:
            nodes = self._known_nodes(felix.own.family)
            pools = self._usable_pools()
            blocks = self._blocks.store.values()
            await self._peering.follow(felix.own, router_id, nodes, pools, blocks)

    def _known_nodes(self, family: Family) -> Mapping[str, Node]:
        known = (dataplane.node_of(obj, family) for obj in self._nodes.store.values())
        return {node.name: node for node in known if node is not None}

    async def _release_the_gone(self, store: Datastore) -> None:
        """Releases the addresses of deleted nodes, which is calico-kube-controllers' part upstream.
        The first node by name does it for all."""
        names = {obj["metadata"]["name"] for obj in self._nodes.store.values()}
        if self.options.nodename != min(names, default=""):
            return
        gone = {
            holder
            for ipam_block in self._blocks.store.values()
            for _, holder in dataplane.owned([ipam_block])
            if holder and holder not in names
        }
        for name in sorted(gone):
            log.info("Node %s was deleted; releasing its addresses", name)
            await asyncio.to_thread(release_node, store, name)


def _router_id(name: str, owns: Iterable[Node]) -> str:
    """The node's IPv4 address, or, if it has none, a hash of its name (CALICO_ROUTER_ID=hash)."""
    address = next((own.ip for own in owns if own.family.version == 4), "")
    return address or block.address_of(
        int.from_bytes(sha1(name.encode()).digest()[:4], "big") | 1,
        "0.0.0.0",
    )


def release_node(store: Datastore, node: str) -> None:
    """Releases all addresses of a node, its empty blocks and its affinities. Raises
    DatastoreError."""
    for ipam_block in store.list(ipam.BLOCKS):
        for _, handle, attributes in block.allocations(ipam_block):
            if attributes.get("node") == node:
                ipam.release(store, handle)
    for ipam_block in store.list(ipam.BLOCKS):
        if block.host(ipam_block) == node:
            if block.is_empty(ipam_block):
                store.delete(ipam.BLOCKS, ipam_block)
            else:
                ipam_block["spec"]["affinity"] = None
                spec = {k: v for k, v in ipam_block["spec"].items() if v is not None}
                store.update(ipam.BLOCKS, {**ipam_block, "spec": spec})
    for affinity in store.list(ipam.AFFINITIES):
        if affinity["spec"]["node"] == node:
            store.delete(ipam.AFFINITIES, affinity)


def _slim(node: KubeObject) -> KubeObject:
    """The fields of a Node that this agent reads."""
    metadata = node["metadata"]
    keys = {dataplane.AS_NUMBER, dataplane.CLUSTER_ID}
    for family in FAMILIES:
        keys |= {family.annotation, *(tunnel.annotation for tunnel in family.tunnels)}
    annotations = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key in keys
    }
    kept = {
        key: metadata[key]
        for key in ("name", "uid", "resourceVersion", "labels")
        if key in metadata
    }
    return {"metadata": kept | {"annotations": annotations}}


async def _wait_until_served(client: Client) -> None:
    """Returns when Calico's CustomResources can be listed."""
    for resource in (IPPOOLS, IPAMBLOCKS, FELIXCONFIGURATIONS):
        await _retry_until_available(lambda resource=resource: client.list(resource))  # type: ignore[misc]


async def _retry_until_available(ask: Callable[[], Any]) -> Any:
    """Retries until the API server answers: it may still be starting, or not know the kind yet."""
    return await until_answered(ask, (ApiError,), GrowingDelay(0.02, _RETRY), log)


async def _create(
    client: Client, resource: Resource[Any], name: str, spec: Mapping[str, Any]
) -> None:
    obj = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
