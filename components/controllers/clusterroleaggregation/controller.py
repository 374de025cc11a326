"""Follows ClusterRoles: a change of one may change those that collect its rules."""

from __future__ import annotations

from typing import Any

from kubewire.components.controllers.clusterroleaggregation.plan import CLUSTERROLES, plan
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key


class ClusterRoleAggregationController(KeyedController):
    component = "clusterrole-aggregation-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.roles = self.follow(CLUSTERROLES, self._enqueue_collecting)

    def _enqueue_collecting(self, old: Any, new: Any) -> None:
        for key, role in self.roles.store.items():
            if role.get("aggregationRule"):
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        role = self.roles.store.get(key)
        if role is not None:
            await self.apply(key, plan(role, self.roles.store.values()))
