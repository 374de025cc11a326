"""What launch.sh and kube-utils do on a node: they prepare weaver's start, and make the node ready
for pods."""

from __future__ import annotations

import asyncio
import base64
import logging
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from kubewire.components.kernel.files import replace
from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, Client
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.nodeconditions import network_available
from kubewire.components.kubeapi.resources import NODES, SECRETS, KubeObject
from kubewire.components.networks.weave import install, kernel
from kubewire.components.networks.weave.addresses import Addresses
from kubewire.components.networks.weave.allocator import Allocator
from kubewire.components.networks.weave.datapath import EXPOSE
from kubewire.components.networks.weave.mesh import Mesh
from kubewire.components.networks.weave.options import Options
from kubewire.components.networks.weave.patience import until_available
from kubewire.components.networks.weave.peerlist import NAMESPACE, PeerList
from kubewire.components.networks.weave.store import Store

log = logging.getLogger("weave-net")


class Launch:
    """Follows the cluster's nodes, which are the peers that the mesh dials."""

    def __init__(
        self,
        options: Options,
        client: Client,
        allocator: Allocator,
        mesh: Mesh,
        addresses: Addresses,
    ) -> None:
        self._options, self._client = options, client
        self._allocator, self._mesh, self._addresses = allocator, mesh, addresses
        self._peers = PeerList(client, options.name, options.nodename)
        self.nodes: Informer[Any] = Informer(
            client, NODES, handler=self._node_changed, transform=_slim
        )
        self._nodes_changed = asyncio.Event()

    async def api_server(self) -> None:
        """Returns when the API server answers."""
        await until_available(lambda: self._client.list(NODES))

    async def read_password(self) -> str:
        """Upstream's DaemonSet takes WEAVE_PASSWORD from this Secret."""
        name = self._options.password_secret
        secret = await until_available(lambda: self._client.get(SECRETS, name, NAMESPACE))
        return base64.b64decode(secret["data"][name]).decode()

    async def restore(self, store: Store) -> None:
        """Restores the allocator's saved state if the peer list still has this peer; else the
        allocator starts anew."""
        saved = store.load()
        if (
            saved is not None
            and await until_available(self._peers.is_listed)
            and self._allocator.restore(saved)
        ):
            log.info("Initialising with persisted data")
        elif self._options.seed:
            log.info("Initialising with supplied IPAM seed")
            self._allocator.seed(self._options.seed)
        else:
            log.info(
                "Initialising via deferred consensus"
                if self._options.quorum
                else "Initialising as observer"
            )

    async def finish(self) -> None:
        """launch.sh's post_start_actions: list of peers, address of the bridge, plugins, the node's
        condition."""
        options = self._options
        await self._registered()
        await until_available(self._peers.add_own)
        address = await self._addresses.allocate(EXPOSE, options.default_subnet)
        cidr = f"{IPv4Address(address)}/{options.default_subnet.prefixlen}"
        await until_available(lambda: kernel.expose(cidr))
        install.install_plugins(options.cni_bin_dir)
        path = Path(options.cni_conf_dir, install.CONFLIST_NAME)
        replace(path, install.conflist(options.mtu, options.http_addr), 0o644)
        log.info("Installed CNI plugins and %s", install.CONFLIST_NAME)
        await until_available(self._set_network_available)
        while True:
            self._nodes_changed.clear()
            await until_available(
                lambda: self._peers.reclaim(self._node_names, self._addresses.takeover)
            )
            await self._nodes_changed.wait()

    async def _registered(self) -> None:
        while self.nodes.get(self._options.nodename) is None:
            self._nodes_changed.clear()
            await self._nodes_changed.wait()

    async def _node_names(self) -> set[str]:
        return {node["metadata"]["name"] for node in (await self._client.list(NODES)).items}

    async def _set_network_available(self) -> None:
        patch = network_available("WeaveIsUp", "Weave pod has set this")
        name = self._options.nodename
        await self._client.patch(
            NODES, name, patch, subresource="status", content_type=STRATEGIC_MERGE_PATCH
        )

    def _node_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None or new is None:
            self._nodes_changed.set()
        self.set_targets()

    def set_targets(self) -> None:
        """The mesh dials every other node."""
        others = (
            node
            for node in self.nodes.store.values()
            if node["metadata"]["name"] != self._options.nodename
        )
        self._mesh.set_targets(address for node in others if (address := node_address(node)))


def node_address(node: KubeObject) -> str:
    """The node's IPv4 InternalIP, else its ExternalIP; "" if it has neither."""
    found = {
        entry["type"]: entry["address"]
        for entry in node.get("status", {}).get("addresses") or ()
        if ":" not in entry["address"]
    }
    return found.get("InternalIP") or found.get("ExternalIP") or ""


def _slim(node: KubeObject) -> KubeObject:
    """The fields of a Node that this module reads."""
    metadata = {
        key: node["metadata"][key]
        for key in ("name", "uid", "resourceVersion")
        if key in node["metadata"]
    }
    return {
        "metadata": metadata,
        "status": {"addresses": node.get("status", {}).get("addresses") or []},
    }
