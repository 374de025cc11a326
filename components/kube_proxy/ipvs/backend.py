"""The IPVS backend: keeps one family's virtual servers, addresses, ipsets and chains equal to the
latest plan."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iptables import parse
from kubewire.components.kernel.nfnetlink.iptables import TableChange
from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.iptables import saved
from kubewire.components.kube_proxy.iptables.applier import Iptables
from kubewire.components.kube_proxy.iptables.chains import Jump
from kubewire.components.kube_proxy.ipvs import chains, rules, servers, sets
from kubewire.components.kube_proxy.ipvs.applier import Dummy, Ipset, Ipvsadm
from kubewire.components.kube_proxy.ipvs.chains import Rules
from kubewire.components.kube_proxy.ipvs.servers import Key, VirtualServer
from kubewire.components.kube_proxy.metrics import Metrics
from kubewire.components.kube_proxy.state.addresses import local_addresses
from kubewire.components.kube_proxy.state.local_traffic import local_source, node_port_ips
from kubewire.components.kube_proxy.state.model import State
from kubewire.components.kube_proxy.state.objects import family_of, in_range

log = logging.getLogger(__name__)
#: How often it is looked whether drained real servers still have connections (upstream's
#: rsCheckDeleteInterval).
_DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class _Kernel:
    """What is there. servers may hold real servers that are being drained; rules is None when
    unknown."""

    servers: Mapping[Key, VirtualServer]
    bound: frozenset[str]
    sets: Mapping[str, frozenset[str]]
    rules: Rules | None = None


class IpvsBackend:
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
        del (
            localhost_node_ports
        )  # 127.0.0.1 is never a virtual server: ip_vs could not lead the answer back.
        self._family, self._settings, self._metrics = family, config, metrics
        self._ipvsadm, self._ipset, self._dummy = Ipvsadm(family), Ipset(family), Dummy(family)
        self._iptables = Iptables(family)
        self._cache = rules.Cache()
        self._kernel: _Kernel | None = None
        self._lock = asyncio.Lock()
        self._draining: asyncio.Task[None] | None = None
        self._timeouts_set = False

    async def sync(self, state: State, *, full: bool) -> None:
        """Raises CommandError, OSError; the next sync is then a full one."""
        started = time.monotonic()
        async with self._lock:
            kernel, self._kernel = self._kernel, None
            try:
                if full or kernel is None:
                    self._kernel = await self._write_all(state)
                else:
                    self._kernel = await self._write_difference(state, kernel)
            finally:
                took = time.monotonic() - started
                self._metrics.sync_duration.observe(took, self._family)
                log.debug("%s: IPVS synced in %.1f ms", self._family, took * 1000)
            self._drain_later()

    async def intact(self) -> bool:
        """False when anything but the chains' content is other than it was written."""
        async with self._lock:
            kernel = self._kernel
            if kernel is None:
                return True  # A sync has failed and will be full.
            if (
                not await self._iptables.has_chain("nat", chains.SERVICES)
                or not self._ipvsadm.loaded()
            ):
                return False
            table, there = await self._ipvsadm.table(), await self._dummy.addresses()
            excluded = [key for key in table if self._excluded(key.ip)]
            seen = {
                key: server
                for key, server in table.items()
                if key not in excluded or key in kernel.servers
            }
            return (
                there.bound == kernel.bound
                and seen == kernel.servers
                and await self._ipset.entries() == kernel.sets
            )

    async def cleanup(self) -> None:
        """Takes everything away again. Nothing there is no error; without ip_vs there cannot be
        anything."""
        if not self._ipvsadm.loaded():
            return
        text = saved.cleanup_text(parse(await self._iptables.save()), chains.BASE_CHAINS)
        if text:
            await self._iptables.restore_text(text)
        present = await self._ipset.entries()
        # Virtual servers without our interface or sets are somebody else's.
        if present or await self._dummy.exists():
            await self._ipvsadm.restore(f"-D {key.service}" for key in await self._ipvsadm.table())
        await self._dummy.delete()
        await self._ipset.restore(sets.destructions(present, self._family))

    async def _write_all(self, state: State) -> _Kernel:
        await self._set_timeouts()
        there = await self._dummy.addresses()
        if there.bound is None:
            await self._dummy.create()
        await self._ipset.restore(sets.creations(self._family))
        kernel = _Kernel(
            await self._ipvsadm.table(), there.bound or frozenset(), await self._ipset.entries()
        )
        jumps = saved.missing_jumps(parse(await self._iptables.save()), chains.JUMPS)
        plan = rules.plan(
            state.services, state.endpoints, self._context(state, there.others), self._cache
        )
        return await self._write(plan, self._rules(plan, state), kernel, jumps)

    async def _write_difference(self, state: State, kernel: _Kernel) -> _Kernel:
        others = frozenset(local_addresses(self._family)) - kernel.bound
        context = self._context(state, frozenset(ip for ip in others if not _loopback(ip)))
        plan = rules.plan(state.services, state.endpoints, context, self._cache, state.changed)
        return await self._write(plan, self._rules(plan, state), kernel)

    async def _write(
        self, plan: rules.Plan, fixed: Rules, kernel: _Kernel, jumps: list[Jump] | None = None
    ) -> _Kernel:
        """What is new comes before what leads to it, and what goes after: nobody is refused on the
        way."""
        change = servers.change(plan.servers, kernel.servers, keep=self._excluded)
        await self._ipset.restore(sets.additions(plan.sets, kernel.sets, self._family))
        await self._ipvsadm.restore(change.lines)
        await self._dummy.change(add=plan.bound - kernel.bound)
        known = kernel.rules if jumps is None else None
        await self._restore(fixed.difference(known) if known else fixed.everything(jumps or ()))
        await self._dummy.change(delete=kernel.bound - plan.bound)
        await self._ipvsadm.restore(change.removals)
        await self._ipset.restore(sets.deletions(plan.sets, kernel.sets, self._family))
        left = (
            await self._remove_drained(change.result)
            if servers.drained(change.result)
            else change.result
        )
        return _Kernel(self._shared(left, plan.servers), plan.bound, plan.sets, fixed)

    @staticmethod
    def _shared(
        there: Mapping[Key, VirtualServer], planned: Mapping[Key, VirtualServer]
    ) -> dict[Key, VirtualServer]:
        """The plan's own objects where they say the same, so that the next change() knows them by
        identity."""
        return {
            key: planned[key] if planned.get(key) == server else server
            for key, server in there.items()
        }

    async def _remove_drained(self, table: Mapping[Key, VirtualServer]) -> dict[Key, VirtualServer]:
        """Weight 0 came first: from then on nobody new can come between the look and the
        removal."""
        connections = await self._ipvsadm.connections()
        done = frozenset(item for item in servers.drained(table) if not connections.get(item))
        await self._ipvsadm.restore(servers.real_removals(done))
        return servers.without(table, done)

    def _drain_later(self) -> None:
        kernel = self._kernel
        waiting = self._draining is not None and not self._draining.done()
        if kernel is not None and servers.drained(kernel.servers) and not waiting:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _restore(self, changes: Sequence[TableChange]) -> None:
        try:
            await self._iptables.restore(changes)
        except (CommandError, OSError):
            self._metrics.restore_failures.inc(self._family)
            raise

    async def _drain(self) -> None:
        """Until nothing is left to drain."""
        while True:
            await asyncio.sleep(_DRAIN_SECONDS)
            async with self._lock:
                kernel = self._kernel
                if kernel is None or not servers.drained(kernel.servers):
                    return
                try:
                    self._kernel = replace(
                        kernel, servers=await self._remove_drained(kernel.servers)
                    )
                except (CommandError, OSError) as error:
                    log.error(
                        "%s: drained real servers stay until the next look: %s", self._family, error
                    )

    async def _set_timeouts(self) -> None:
        ipvs = self._settings.ipvs
        wanted = (ipvs.tcp_timeout, ipvs.tcp_fin_timeout, ipvs.udp_timeout)
        if any(wanted) and not self._timeouts_set:
            await self._ipvsadm.set_timeouts(*wanted)
            self._timeouts_set = True

    def _context(self, state: State, others: frozenset[str]) -> rules.Context:
        ips = node_port_ips(
            self._settings.served_node_port_addresses,
            self._family,
            state.node,
            lambda _: sorted(others),
            loopback=False,
        )
        return rules.Context(
            node=state.node,
            family=self._family,
            scheduler=self._settings.ipvs.scheduler or rules.DEFAULT_SCHEDULER,
            node_addresses=others,
            node_port_ips=tuple(sorted(others if ips is None else ips)),
        )

    def _rules(self, plan: rules.Plan, state: State) -> Rules:
        return Rules(
            family=self._family,
            local_source=local_source(self._settings, self._family, state.node),
            masquerade_all=self._settings.iptables.masquerade_all,
            masquerade_bit=self._settings.iptables.masquerade_bit,
            nonempty=sets.nonempty(plan.sets),
            closed_to_node=plan.closed_to_node,
        )

    def _excluded(self, ip: str) -> bool:
        cidrs = self._settings.ipvs.exclude_cidrs
        return any(in_range(ip, cidr) for cidr in cidrs if family_of(cidr) == self._family)


def _loopback(ip: str) -> bool:
    return ip.startswith("127.") or ip == "::1"
