"""Follows ServiceCIDRs and, while one is being deleted, the IPAddresses in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, is_deleting
from kubewire.components.controllers.servicecidr.plan import plan
from kubewire.components.kubeapi.resources import IPADDRESSES, SERVICECIDRS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import IPAddress, ServiceCIDR


class ServiceCIDRController(KeyedController):
    component = "service-cidr-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.service_cidrs = self.follow(SERVICECIDRS, self._enqueue_all)
        self.addresses = self.follow(IPADDRESSES, self._enqueue_leaving)

    def _enqueue_all(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        """Enqueues all: a ServiceCIDR that appears or disappears may cover addresses of another."""
        self.enqueue(old, new)
        for key in self.service_cidrs.store:
            self.queue.add(key)

    def _enqueue_leaving(self, old: IPAddress | None, new: IPAddress | None) -> None:
        for key, service_cidr in self.service_cidrs.store.items():
            if is_deleting(service_cidr):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        service_cidr = self.service_cidrs.store.get(key)
        if service_cidr is None:
            return
        other_cidrs = [item for name, item in self.service_cidrs.store.items() if name != key]
        addresses = [name for _, name in self.addresses.store]
        await self.apply(key, plan(service_cidr, other_cidrs, addresses, self.context.now()))
