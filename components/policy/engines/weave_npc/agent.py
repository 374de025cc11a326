"""weave-npc, the policy controller of one node: follows policies, pods and namespaces, keeps the
kernel's chains and sets, and counts what is blocked."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from kubewire.components.base.prometheus import Registry
from kubewire.components.kernel.nflog import LogSocket
from kubewire.components.kubeapi.client import Client
from kubewire.components.policy.applier import Applier
from kubewire.components.policy.engines.weave_npc import blocked, names, render
from kubewire.components.policy.follow import Follower
from kubewire.components.policy.model import Changes, ObjectKey, State

log = logging.getLogger("weave-npc")


@dataclass(frozen=True)
class Options:
    """main.py makes them from the command line."""

    kubeconfig: str
    metrics_address: str = "0.0.0.0:6781"
    render: render.Options = field(default_factory=render.Options)


class Metrics:
    """Under upstream's names (npc/metrics)."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.blocked = self.registry.counter(
            "weavenpc_blocked_connections_total",
            "Connection attempts that the policy controller has blocked",
            "protocol",
            "dport",
        )
        self.errors = self.registry.counter(
            "weavenpc_policy_enforcement_errors",
            "Errors while network policies were enforced",
        )


class Agent:
    """run() returns only when it is cancelled. Chains and sets stay when it ends, so what is
    enforced stays enforced."""

    def __init__(self, options: Options, client: Client, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._applier = Applier(names.SET_PREFIX)
        self._rejected: dict[ObjectKey, str] = {}
        self._follower = Follower(client, ("NetworkPolicy",), self._changed)

    async def run(self) -> None:
        """Raises OSError if NFLOG group 86 is taken."""
        loop = asyncio.get_running_loop()
        with LogSocket(names.NFLOG_GROUP) as packets:
            loop.add_reader(packets, self._count, packets)
            try:
                await self._follower.run()
            finally:
                loop.remove_reader(packets)

    async def _changed(self, state: State, _: Changes) -> None:
        rendered = render.render(state, self._options.render)
        for key, reason in rendered.rejected.items():
            if self._rejected.get(key) != reason:
                log.error("%s: %s", key, reason)
                self._metrics.errors.inc()
        self._rejected = dict(rendered.rejected)
        await self._applier.settle(rendered.ruleset, rendered.sets, self._failed)

    def _failed(self, error: Exception) -> None:
        self._metrics.errors.inc()
        log.error("%s", error)

    def _count(self, packets: LogSocket) -> None:
        for packet in packets.received():
            if attempt := blocked.blocked(packet.data):
                log.warning("%s", attempt)
                self._metrics.blocked.inc(attempt.protocol, str(attempt.destination_port))
