"""What follows each successful sync, in upstream's order: how late it was, who has no local
endpoint, health checks of Services, stale UDP flows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from kubewire.components.kube_proxy import service_health
from kubewire.components.kube_proxy.conntrack import netlink
from kubewire.components.kube_proxy.conntrack.stale import stale, wanted
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.service_health import ServiceHealth
from kubewire.components.kube_proxy.state import topology
from kubewire.components.kube_proxy.state.model import Endpoints, Node, Services
from kubewire.components.kube_proxy.state.tracker import Pending

log = logging.getLogger(__name__)


class Synced(Protocol):
    """What a sync brought into the kernel (model.State)."""

    @property
    def services(self) -> Services: ...
    @property
    def endpoints(self) -> Endpoints: ...
    @property
    def node(self) -> Node: ...


def without_local_endpoints(state: Synced) -> dict[str, int]:
    """traffic_policy -> ports whose policy Local finds endpoints, but none here: their traffic is
    dropped."""
    counts = {"internal": 0, "external": 0}
    for name, service in state.services.items():
        if not service.uses_local_endpoints:
            continue
        chosen = topology.choose(state.endpoints.get(name, ()), service, state.node)
        if chosen.anywhere and not chosen.local:
            counts["internal"] += service.internal_local
            counts["external"] += service.external_local and service.externally_accessible
    return counts


class AfterSync:
    """One for the process: both families' Services share their health check ports."""

    def __init__(self, metrics: Metrics, health: ServiceHealth) -> None:
        self._metrics, self._health = metrics, health
        self._states: dict[str, Synced] = {}

    async def run(self, family: str, state: Synced, pending: Pending) -> None:
        self._states[family] = state
        self._observe_lateness(family, pending.trigger_times)
        for policy, count in without_local_endpoints(state).items():
            self._metrics.no_local_endpoints.set(count, family, policy)
        await self._sync_health(state.node.name)
        if pending.udp:
            await self._delete_stale_flows(family, state)

    def _observe_lateness(
        self, family: str, trigger_times: Mapping[tuple[str, str], list[float]]
    ) -> None:
        now = time.time()
        for times in trigger_times.values():
            for since in times:
                self._metrics.programming_duration.observe(now - since, family)

    async def _sync_health(self, node: str) -> None:
        states = self._states.values()
        ports = service_health.ports_of(state.services for state in states)
        await self._health.sync(
            ports, service_health.local_ready((state.endpoints for state in states), ports, node)
        )

    async def _delete_stale_flows(self, family: str, state: Synced) -> None:
        """A failure is logged: the rules are right, the flows end by their time-out."""
        started = time.monotonic()
        expected = wanted(state.services, state.endpoints)
        try:
            # The dump of a full table takes long enough to delay answers of /healthz.
            flows = await asyncio.to_thread(netlink.udp_flows, family)
            deleted = await asyncio.to_thread(netlink.delete, family, stale(flows, expected))
        except OSError as error:
            log.error("%s: stale UDP flows stay until they time out: %s", family, error)
            return
        self._metrics.conntrack_duration.observe(time.monotonic() - started, family)
        if deleted:
            self._metrics.conntrack_deleted.inc(family, by=deleted)
            log.info("%s: deleted %d stale UDP flows", family, deleted)
