"""Informers -> trackers -> backend: the life of a kube-proxy process."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewire.components.kube_proxy import modes, sysctls
from kubewire.components.kube_proxy.aftersync import AfterSync
from kubewire.components.kube_proxy.backends import BACKENDS, ERRORS, Backend, check
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.configuration.configfile import until_changed
from kubewire.components.kube_proxy.families import available_families
from kubewire.components.kube_proxy.health import Health, healthz_app, metrics_app, serve
from kubewire.components.kube_proxy.memory import settle
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.runner import BoundedFrequencyRunner
from kubewire.components.kube_proxy.service_health import ServiceHealth, ServiceKey
from kubewire.components.kube_proxy.state.addresses import local_addresses
from kubewire.components.kube_proxy.state.local_traffic import node_port_ips
from kubewire.components.kube_proxy.state.model import IPV4, IPV6, Node, State
from kubewire.components.kube_proxy.state.objects import (
    LABEL_SELECTOR,
    node_from,
    trim,
    trim_service,
    trim_slice,
)
from kubewire.components.kube_proxy.state.snapshot import Snapshot
from kubewire.components.kube_proxy.state.tracker import Tracker
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NODES, SERVICECIDRS, SERVICES

if TYPE_CHECKING:
    from kubewire.components.kubeapi import types

log = logging.getLogger(__name__)
#: The kernel is looked at anew this often although nothing seems wrong (upstream's FullSyncPeriod).
_FULL_SYNC_SECONDS = 3600.0


@dataclass
class _Family:
    """One IP family: what is known, what a sync sees of it, what writes it."""

    tracker: Tracker
    snapshot: Snapshot
    backend: Backend
    runner: BoundedFrequencyRunner | None = None
    full: bool = True
    last_full: float = 0.0


class Proxy:
    """run() serves until it is cancelled. Rules stay when it ends."""

    def __init__(self, client: Client, config: KubeProxyConfiguration, node_name: str) -> None:
        self._client, self._config, self._node_name = client, config, node_name
        self._metrics = Metrics(config.effective_mode)
        self._health = Health(timeout=2 * config.sync_period)
        self._events = EventRecorder(client, "kube-proxy", node_name)
        self._service_health = ServiceHealth(
            node_name,
            lambda: self._health.healthy(time.time_ns()),
            self._health_addresses,
            self._no_health_check,
        )
        self._after_sync = AfterSync(self._metrics, self._service_health)
        self._node = Node(node_name)
        self._families: dict[str, _Family] = {}
        self._ready = False
        self._services = Informer(
            client, SERVICES, label_selector=LABEL_SELECTOR, transform=trim_service
        )
        self._slices = Informer(
            client, ENDPOINTSLICES, label_selector=LABEL_SELECTOR, transform=trim_slice
        )
        self._cidrs = Informer(client, SERVICECIDRS, transform=trim, handler=self._cidr_changed)
        self._service_cidrs: tuple[str, ...] = ()
        self._nodes = Informer(
            client,
            NODES,
            field_selector=f"metadata.name={node_name}",
            transform=trim,
            handler=self._node_changed,
        )

    async def run(self) -> None:
        """Servers, then one look at the cluster, then a sync per change."""
        mode = self._config.effective_mode
        await check(self._config)
        localhost = sysctls.prepare(self._config)
        hard = self._config.bind_address_hard_fail
        found = await available_families(mode)
        servers = [
            await serve(
                healthz_app(self._health, self._metrics),
                self._config.healthz_bind_address,
                hard_fail=hard,
            ),
            await serve(
                metrics_app(self._metrics, mode), self._config.metrics_bind_address, hard_fail=hard
            ),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._nodes.run())
                await self._nodes.synced.wait()
                for family in found:
                    self._add_family(family, mode, localhost)
                await cleanup(self._config, but=mode)
                self._announce()
                self._services.add_handler(self._service_changed)
                self._slices.add_handler(self._slice_changed)
                for job in self._jobs():
                    tasks.create_task(job)
                await wait_synced(self._services, self._slices)
                self._ready = True
                self._request_all()
        finally:
            await self._service_health.close()
            for server in filter(None, servers):
                await server.cleanup()

    def _jobs(self) -> list[Coroutine[Any, Any, None]]:
        jobs: list[Coroutine[Any, Any, None]] = [
            self._services.run(),
            self._slices.run(),
            self._events.run(),
        ]
        if modes.of(self._config.effective_mode).watches_service_cidrs:
            jobs.append(self._cidrs.run())
        for family in self._families.values():
            if family.runner:
                jobs += [family.runner.run(), self._watch_canary(family)]
        return jobs

    def _add_family(self, name: str, mode: str, localhost: bool) -> None:
        backend = BACKENDS[mode](name, self._config, self._metrics, localhost_node_ports=localhost)
        tracker = Tracker(name, self._metrics, time.time())
        family = self._families[name] = _Family(tracker, Snapshot(tracker), backend)
        family.runner = BoundedFrequencyRunner(
            lambda: self._sync(family),
            min_interval=self._config.min_sync_period,
            retry_interval=self._config.sync_period,
            max_interval=_FULL_SYNC_SECONDS,
        )

    def _node_changed(self, _: types.Node | None, new: types.Node | None) -> None:
        self._health.node = new
        node = node_from(self._node_name, new)
        if node != self._node:
            self._node = node
            self._request_all()

    def _service_changed(self, old: types.Service | None, new: types.Service | None) -> None:
        for family in self._families.values():
            if family.tracker.service_changed(old, new):
                self._request(family)

    def _slice_changed(
        self, old: types.EndpointSlice | None, new: types.EndpointSlice | None
    ) -> None:
        for family in self._families.values():
            if family.tracker.slice_changed(old, new):
                self._request(family)

    def _cidr_changed(self, _: types.ServiceCIDR | None, __: types.ServiceCIDR | None) -> None:
        cidrs = {
            cidr for item in self._cidrs.store.values() for cidr in item["spec"].get("cidrs") or ()
        }
        if self._service_cidrs != (known := tuple(sorted(cidrs))):
            self._service_cidrs = known
            self._request_all()

    def _request_all(self) -> None:
        for family in self._families.values():
            self._request(family)

    def _request(self, family: _Family) -> None:
        # Half a list must not become rules: a Service without its endpoints yet would be rejected.
        if not self._ready or family.runner is None:
            return
        self._health.queued(family.tracker.family)
        self._metrics.last_queued.set(time.time(), family.tracker.family)
        family.runner.request()

    async def _sync(self, family: _Family) -> None:
        tracker, snapshot, now = family.tracker, family.snapshot, time.monotonic()
        full = family.full or now - family.last_full > _FULL_SYNC_SECONDS
        family.full = True
        changed = snapshot.advance()
        state = State(
            snapshot.services, snapshot.endpoints, self._node, changed, self._service_cidrs
        )
        pending = tracker.take_pending()
        try:
            await family.backend.sync(state, full=full)
        except BaseException:
            tracker.give_back(pending)
            raise
        family.full = False
        if full:
            family.last_full = now
            settle()
        tracker.synced()
        self._health.updated(tracker.family)
        self._metrics.last_sync.set(time.time(), tracker.family)
        await self._after_sync.run(tracker.family, state, pending)

    def _announce(self) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._node_name, "uid": self._node_name},
        }
        self._events.event(node, "Normal", "Starting", "")

    def _health_addresses(self) -> tuple[str, ...]:
        """Where health check ports listen: everywhere, or with --nodeport-addresses there."""
        found: list[str] = []
        for family in self._families:
            configured = self._config.served_node_port_addresses
            ips = node_port_ips(configured, family, self._node, local_addresses, loopback=True)
            if ips is None:
                return ("",)
            found += ips
        return tuple(found)

    def _no_health_check(self, service: ServiceKey, why: str) -> None:
        namespace, name = service
        metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}"}
        subject = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
        self._events.event(subject, "Warning", "FailedToStartServiceHealthcheck", why)

    async def _watch_canary(self, family: _Family) -> None:
        """Somebody who flushes the tables takes the canary with them; then everything is written
        again."""
        while True:
            await asyncio.sleep(self._config.sync_period)
            if not family.full and not await family.backend.intact():
                log.info("%s: our rules are gone, writing all of them again", family.tracker.family)
                family.full = True
                self._request(family)


async def serve_until_signalled(
    client: Client, config: KubeProxyConfiguration, node_name: str, config_file: str = ""
) -> None:
    """SIGTERM and SIGINT end it without touching the rules: traffic goes on. Raises
    ConfigFileChanged."""
    async with client:
        tasks = [asyncio.ensure_future(Proxy(client, config, node_name).run())]
        if config_file:
            tasks.append(asyncio.ensure_future(until_changed(config_file)))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, tasks[0].cancel)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        log.info("stopped")


async def cleanup(config: KubeProxyConfiguration, *, but: str = "") -> None:
    """Remove the rules of every mode, in both families. but: except of this one and those that
    share chains with it; what cannot be removed then (its tool may not be installed) is only
    logged."""
    kept = modes.find(but)
    for mode in modes.MODES:
        # Modes that use iptables share chains: starting in one leaves the other's alone, as
        # upstream does.
        spared = kept is not None and (mode is kept or (mode.uses_iptables and kept.uses_iptables))
        for family in (IPV4, IPV6) if not spared else ():
            try:
                await BACKENDS[mode.name](
                    family, config, Metrics(), localhost_node_ports=False
                ).cleanup()
            except ERRORS as error:
                if not but:
                    raise
                log.debug("%s rules of another mode (%s) may be left: %s", family, mode.name, error)
