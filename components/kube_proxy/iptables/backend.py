"""The iptables backend: keeps one family's rules equal to the latest plan with as little writing as possible."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable

from kubewire.components.base.prometheus import Histogram
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iptables import parse
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables import chains, rules, saved
from kubewire.components.kube_proxy.iptables.applier import Iptables
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.addresses import local_addresses
from kubewire.components.kube_proxy.state.local_traffic import local_source, node_port_ips
from kubewire.components.kube_proxy.state.model import IPV4, State

log = logging.getLogger(__name__)


class IptablesBackend:
    """sync() writes the difference to what it wrote last; full=True looks at what is really there first."""

    def __init__(
        self, family: str, config: KubeProxyConfiguration, metrics: Metrics, *, localhost_node_ports: bool
    ) -> None:
        self._family, self._settings, self._metrics = family, config, metrics
        self._localhost_node_ports = localhost_node_ports
        self._iptables = Iptables(family)
        self._cache = rules.Cache()
        self._written: rules.Plan | None = None

    async def sync(self, state: State, *, full: bool) -> None:
        """Raises CommandError, OSError; the next sync is then a full one."""
        config, changed = self._config(state), None if full else state.changed
        plan = rules.plan(state.services, state.endpoints, state.node, config, self._cache, changed)
        earlier, self._written = self._written, None
        try:
            if full or earlier is None:
                await self._timed(self._write_all(plan), self._metrics.sync_full_duration)
            else:
                await self._timed(self._write_difference(plan, earlier), self._metrics.sync_partial_duration)
        except (CommandError, OSError):
            self._metrics.restore_failures.inc(self._family)
            if earlier is not None and not full:
                self._metrics.partial_restore_failures.inc(self._family)
            raise
        self._written = plan

    async def intact(self) -> bool:
        """False when the canary is gone: somebody flushed the tables."""
        return await self._iptables.has_chain(chains.CANARY_TABLES[0], chains.CANARY)

    async def cleanup(self) -> None:
        """Takes everything away again. Nothing there is no error."""
        text = saved.cleanup_text(parse(await self._iptables.save()))
        if text:
            await self._iptables.restore(text)

    def _config(self, state: State) -> rules.Config:
        settings = self._settings
        return rules.Config(
            family=self._family,
            local_source=local_source(settings, self._family, state.node),
            masquerade_all=settings.iptables.masquerade_all,
            masquerade_bit=settings.iptables.masquerade_bit,
            localhost_node_ports=self._localhost_node_ports and self._family == IPV4,
            conntrack_tcp_be_liberal=settings.conntrack.tcp_be_liberal,
            node_port_ips=node_port_ips(
                settings.served_node_port_addresses,
                self._family,
                state.node,
                local_addresses,
                loopback=self._localhost_node_ports and self._family == IPV4,
            ),
        )

    async def _write_all(self, plan: rules.Plan) -> None:
        """One look at what is there, then one transaction that also puts back jumps and canaries."""
        tables = parse(await self._iptables.save())
        wanted = (*chains.JUMPS, *(chains.KUBELET_JUMPS if plan.config.localhost_node_ports else ()))
        text = plan.text(
            stale=saved.stale_chains(tables, plan.service_chains),
            jumps=saved.missing_jumps(tables, wanted),
            canaries=saved.missing_canaries(tables),
        )
        await self._restore(text, plan)

    async def _write_difference(self, plan: rules.Plan, earlier: rules.Plan) -> None:
        difference = plan.since(earlier)
        if difference.empty:
            return
        text = plan.text(only=difference.written, shared=difference.shared, stale=difference.stale)
        await self._restore(text, plan)

    async def _restore(self, text: str, plan: rules.Plan) -> None:
        await self._iptables.restore(text)
        for table, count in rules.rule_counts(text).items():
            self._metrics.rules_last_sync.set(count, table, self._family)
        for table, count in plan.totals().items():
            self._metrics.rules_total.set(count, table, self._family)

    async def _timed(self, work: Awaitable[None], histogram: Histogram) -> None:
        started = time.monotonic()
        try:
            await work
        finally:
            took = time.monotonic() - started
            histogram.observe(took, self._family)
            self._metrics.sync_duration.observe(took, self._family)
            log.debug("%s: rules synced in %.1f ms", self._family, took * 1000)
