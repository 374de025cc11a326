"""Assigns podCIDR and podCIDRs to nodes (the RangeAllocator of node-ipam-controller)."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Emit, Patch
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.flags import Network
from kubewire.components.controllers.meta import Key, by_age, is_deleting
from kubewire.components.kubeapi.informer import wait_synced
from kubewire.components.kubeapi.resources import NODES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node

log = logging.getLogger(__name__)


class RangeExhausted(Exception):
    """Every block of a cluster CIDR is in use."""


class CidrSet:
    """Blocks of one size in a cluster CIDR.

    They are allocated in turn, so that a released block is reused as late as possible.
    """

    def __init__(self, cluster: Network, mask_size: int) -> None:
        self.cluster = cluster
        self.mask_size = mask_size
        self._count = 1 << (mask_size - cluster.prefixlen)
        self._step = 1 << (cluster.max_prefixlen - mask_size)
        self._used: set[int] = set()
        self._next = 0

    def occupy(self, network: Network) -> bool:
        """Marks all blocks that overlap the network; returns False when it lies outside the
        range.
        """
        indexes = self._indexes(network)
        self._used.update(indexes)
        return bool(indexes)

    def release(self, network: Network) -> None:
        self._used.difference_update(self._indexes(network))

    def allocate(self) -> Network:
        """Takes the next free block; raises RangeExhausted when there is none."""
        if len(self._used) >= self._count:
            text = "CIDR allocation failed; there are no remaining CIDRs left to allocate in"
            raise RangeExhausted(f"{text} {self.cluster}")
        while self._next in self._used:
            self._next = (self._next + 1) % self._count
        index = self._next
        self._used.add(index)
        self._next = (index + 1) % self._count
        address = self.cluster.network_address + index * self._step
        return ipaddress.ip_network(f"{address}/{self.mask_size}")

    def _indexes(self, network: Network) -> range:
        if network.version != self.cluster.version:
            return range(0)
        base = int(self.cluster.network_address)
        first = (int(network.network_address) - base) // self._step
        last = (int(network.broadcast_address) - base) // self._step
        return range(max(first, 0), min(last, self._count - 1) + 1)


def pod_cidrs(node: Node) -> list[str]:
    spec = node.get("spec") or {}
    cidrs = spec.get("podCIDRs") or []
    return list(cidrs) or [item for item in [spec.get("podCIDR")] if item]


def occupy_all(
    sets: Sequence[CidrSet],
    nodes: Iterable[Node],
    services: Iterable[Network],
) -> None:
    """Reserves the blocks that nodes already have and those that overlap a Service range."""
    for network in services:
        for cidrs in sets:
            cidrs.occupy(network)
    for node in nodes:
        for text in pod_cidrs(node):
            network = ipaddress.ip_network(text)
            if not any(cidrs.occupy(network) for cidrs in sets):
                name = node["metadata"]["name"]
                log.warning("node %s: podCIDR %s lies outside the cluster CIDR", name, text)


class NodeIpamController(KeyedController):
    component = "cidrAllocator"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        options = context.options
        sizes = {4: options.mask_size_ipv4, 6: options.mask_size_ipv6}
        self.sets = [CidrSet(network, sizes[network.version]) for network in options.cluster_cidrs]
        # The blocks of each node, written or not: a node whose patch failed keeps its blocks.
        self.assigned: dict[str, list[str]] = {}
        self.nodes = self.follow(NODES, self._on_node)
        self.occupied = False

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self._release((old or {})["metadata"]["name"], pod_cidrs(old or {}))
        elif not pod_cidrs(new) and not is_deleting(new):
            self.queue.add(("", new["metadata"]["name"]))

    def _release(self, name: str, written: list[str]) -> None:
        for text in set(written) | set(self.assigned.pop(name, ())):
            for cidrs in self.sets if self.occupied else ():
                cidrs.release(ipaddress.ip_network(text))
        for key in self.nodes.store:
            if not pod_cidrs(self.nodes.store[key]):
                self.queue.add(key)

    async def run(self) -> None:
        await wait_synced(self.nodes)
        known = by_age(self.nodes.store.values())
        occupy_all(self.sets, known, self.context.options.service_cidrs)
        self.occupied = True
        await super().run()

    async def sync(self, key: Key) -> None:
        node = self.nodes.store.get(key)
        if node is None or is_deleting(node) or pod_cidrs(node):
            return
        name = key[1]
        if name not in self.assigned and not self._assign(node):
            return
        cidrs = self.assigned[name]
        patch = {"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}}
        await self.apply(key, [Patch(NODES, "", name, patch)])

    def _assign(self, node: Node) -> bool:
        name = node["metadata"]["name"]
        taken: list[Network] = []
        try:
            for cidrs in self.sets:
                taken.append(cidrs.allocate())
        except RangeExhausted as error:
            for cidrs, network in zip(self.sets, taken, strict=False):
                cidrs.release(network)
            log.error("node %s: %s", name, error)
            text = f"Node {name} status is now: CIDRNotAvailable"
            event = Emit(node, "Normal", "CIDRNotAvailable", text)
            self.events.event(event.regarding, event.type, event.reason, event.message)
            return False
        self.assigned[name] = [str(network) for network in taken]
        return True
