"""The nftables backend: keeps one family's table equal to the state with as little writing as
possible."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from kubewire.components.kernel.command import CommandError
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.memory import uncollected
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.nftables.applier import Nft
from kubewire.components.kube_proxy.nftables.plan import Change, Plan
from kubewire.components.kube_proxy.nftables.rules import Config, service_cidrs_changed, setup
from kubewire.components.kube_proxy.nftables.statements import AddTable, DeleteChain, DeleteTable
from kubewire.components.kube_proxy.state.addresses import local_addresses
from kubewire.components.kube_proxy.state.local_traffic import local_source, node_port_ips
from kubewire.components.kube_proxy.state.model import State
from kubewire.components.kube_proxy.state.objects import family_of

log = logging.getLogger(__name__)
#: A chain that nothing refers to is deleted so long after it was emptied (kernels before 6.2, see
#: Change.statements).
_STALE_SECONDS = 1.0


class NftablesBackend:
    """sync() writes the difference to what it wrote last; full=True writes everything anew, in one
    transaction."""

    def __init__(
        self,
        family: str,
        config: KubeProxyConfiguration,
        metrics: Metrics,
        *,
        localhost_node_ports: bool,
    ) -> None:
        # NodePorts on localhost need route_localnet, which lets in what must stay out
        # (CVE-2020-8558): never here.
        del localhost_node_ports
        self._family, self._settings, self._metrics = family, config, metrics
        self._nft = Nft(Config(family).ip)
        self._plan: Plan | None = None
        self._hooks_are_ours = False
        self._stale: dict[str, float] = {}

    async def sync(self, state: State, *, full: bool) -> None:
        """Raises CommandError, OSError; the next sync is then a full one."""
        started, config = time.monotonic(), self._config(state)
        plan, self._plan = self._plan, None
        if (
            plan is not None
            and replace(config, service_cidrs=plan.config.service_cidrs) != plan.config
        ):
            plan = None
        partial = plan is not None and not full
        try:
            await self._delete_stale(started)
            if plan is None or full:
                with uncollected():
                    plan = await self._write_all(state, config)
            else:
                await self._write_difference(plan, state, config)
        except (CommandError, OSError):
            self._stale.clear()  # They may not have been emptied; a full sync finds them.
            self._metrics.nftables_sync_failures.inc(self._family)
            raise
        finally:
            self._took(time.monotonic() - started, partial=partial)
        self._plan = plan

    async def intact(self) -> bool:
        """False when the table is gone: somebody flushed the ruleset."""
        return await self._nft.has_table()

    async def cleanup(self) -> None:
        """Takes the table away. None there is no error."""
        await self._nft.apply([AddTable(), DeleteTable()])

    def _config(self, state: State) -> Config:
        settings = self._settings
        return Config(
            family=self._family,
            local_source=local_source(settings, self._family, state.node),
            masquerade_all=settings.nftables.masquerade_all,
            masquerade_bit=settings.nftables.masquerade_bit,
            node_port_ips=node_port_ips(
                settings.served_node_port_addresses,
                self._family,
                state.node,
                local_addresses,
                loopback=False,
            ),
            service_cidrs=tuple(
                cidr for cidr in state.service_cidrs if family_of(cidr) == self._family
            ),
        )

    async def _write_all(self, state: State, config: Config) -> Plan:
        plan = Plan(config)
        present = await self._nft.present()
        change = plan.whole(state.services, state.endpoints, state.node, present)
        there = present is not None
        begin = setup(config, there=there, foreign=there and not self._hooks_are_ours)
        if there:
            await self._nft.apply([*begin, *change.statements()])
        else:
            await self._nft.load(list(begin), list(change.statements()))
        self._hooks_are_ours = True
        self._note_stale(change)
        return plan

    async def _write_difference(self, plan: Plan, state: State, config: Config) -> None:
        change = plan.partial(state.services, state.endpoints, state.node, state.changed)
        begin = service_cidrs_changed(config) if config != plan.config else []
        plan.config = config
        statements = [*begin, *change.statements()]
        if statements:
            await self._nft.apply(statements)
        self._note_stale(change)

    def _note_stale(self, change: Change) -> None:
        now = time.monotonic()
        for name in change.added.keys() | change.rewritten.keys():
            self._stale.pop(name, None)
        self._stale |= dict.fromkeys(change.stale, now)

    async def _delete_stale(self, now: float) -> None:
        """A transaction of its own, as its failure shall not hold up anything else."""
        names = sorted(name for name, since in self._stale.items() if now - since > _STALE_SECONDS)
        if not names:
            return
        try:
            await self._nft.apply([DeleteChain(name) for name in names])
        except (CommandError, OSError) as error:
            log.error("Unable to delete stale chains; will retry later: %s", error)
            self._metrics.nftables_cleanup_failures.inc(self._family)
            self._stale |= dict.fromkeys(names, now)
            return
        for name in names:
            del self._stale[name]

    def _took(self, seconds: float, *, partial: bool) -> None:
        self._metrics.sync_duration.observe(seconds, self._family)
        histogram = (
            self._metrics.sync_partial_duration if partial else self._metrics.sync_full_duration
        )
        histogram.observe(seconds, self._family)
        log.debug("%s: table synced in %.1f ms", self._family, seconds * 1000)
