"""The iptables backend: keeps one family's rules equal to the latest plan with as little writing as
possible."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Sequence

from kubewire.components.base.prometheus import Histogram
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iptables import parse
from kubewire.components.kernel.nfnetlink.iptables import TableChange
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables import chains, rules, saved
from kubewire.components.kube_proxy.iptables.applier import Iptables
from kubewire.components.kube_proxy.memory import uncollected
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.addresses import local_addresses
from kubewire.components.kube_proxy.state.local_traffic import local_source, node_port_ips
from kubewire.components.kube_proxy.state.model import IPV4, State

log = logging.getLogger(__name__)


class IptablesBackend:
    """sync() writes the difference to what it wrote last; full=True looks at what is really there
    first."""

    def __init__(
        self,
        family: str,
        config: KubeProxyConfiguration,
        metrics: Metrics,
        *,
        localhost_node_ports: bool,
    ) -> None:
        self._family, self._settings, self._metrics = family, config, metrics
        self._localhost_node_ports = localhost_node_ports and family == IPV4
        self._iptables = Iptables(family)
        self._plan = rules.Plan()
        self._is_written = False

    async def sync(self, state: State, *, full: bool) -> None:
        """Raises CommandError, OSError; the next sync is then a full one."""
        partial, self._is_written = self._is_written and not full, False
        config, changed = self._config(state), None if full else state.changed
        with uncollected():
            change = self._plan.update(state.services, state.endpoints, state.node, config, changed)
            try:
                if partial:
                    await self._timed(
                        self._write(self._plan.difference(change)),
                        self._metrics.sync_partial_duration,
                    )
                else:
                    await self._timed(self._write_all(), self._metrics.sync_full_duration)
            except (CommandError, OSError):
                self._metrics.restore_failures.inc(self._family)
                if partial:
                    self._metrics.partial_restore_failures.inc(self._family)
                raise
        self._is_written = True

    async def intact(self) -> bool:
        """False when the canary is gone: somebody flushed the tables."""
        return await self._iptables.has_chain(chains.CANARY_TABLES[0], chains.CANARY)

    async def cleanup(self) -> None:
        """Takes everything away again. Nothing there is no error."""
        text = saved.cleanup_text(parse(await self._iptables.save()))
        if text:
            await self._iptables.restore_text(text)

    def _config(self, state: State) -> rules.Config:
        settings = self._settings
        return rules.Config(
            family=self._family,
            local_source=local_source(settings, self._family, state.node),
            masquerade_all=settings.iptables.masquerade_all,
            masquerade_bit=settings.iptables.masquerade_bit,
            localhost_node_ports=self._localhost_node_ports,
            conntrack_tcp_be_liberal=settings.conntrack.tcp_be_liberal,
            node_port_ips=node_port_ips(
                settings.served_node_port_addresses,
                self._family,
                state.node,
                local_addresses,
                loopback=self._localhost_node_ports,
            ),
        )

    async def _write_all(self) -> None:
        """One look at what is there, then one transaction that also puts back jumps and
        canaries."""
        tables = parse(await self._iptables.save())
        wanted = (*chains.JUMPS, *(chains.KUBELET_JUMPS if self._localhost_node_ports else ()))
        changes = self._plan.everything(
            stale=saved.stale_chains(tables, self._plan.service_chains),
            jumps=saved.missing_jumps(tables, wanted),
            canaries=saved.missing_canaries(tables),
        )
        await self._write(changes)

    async def _write(self, changes: Sequence[TableChange]) -> None:
        if not any(changes):
            return
        await self._iptables.restore(changes)
        for change in changes:
            if change.rules:
                self._metrics.rules_last_sync.set(len(change.rules), change.table, self._family)
        for table, count in self._plan.totals().items():
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
