"""azure-npm, the network policy manager of one node: follows policies, pods and namespaces, and
keeps the kernel's chains and sets."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from kubewire.components.base.prometheus import Registry
from kubewire.components.kubeapi.client import Client
from kubewire.components.policy.applier import Applier
from kubewire.components.policy.engines.azure_npm import names, render
from kubewire.components.policy.follow import Follower
from kubewire.components.policy.model import Changes, ObjectKey, State

log = logging.getLogger("azure-npm")


@dataclass(frozen=True)
class Options:
    """main.py makes them from the command line."""

    kubeconfig: str
    metrics_address: str = "0.0.0.0:10091"


class Metrics:
    """Under upstream's names (npm/metrics)."""

    def __init__(self) -> None:
        self.registry = Registry()
        gauge = self.registry.gauge
        self.policies = gauge("npm_num_policies", "Network policies on this node")
        self.rules = gauge("npm_num_iptables_rules", "Rules of network policies on this node")
        self.sets = gauge("npm_num_ipsets", "Sets on this node")
        self.entries = gauge("npm_num_ipset_entries", "Entries of all sets on this node")
        self.seconds = self.registry.histogram(
            "npm_controller_policy_exec_time",
            "Milliseconds that a change took until the kernel had it",
            buckets=(1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0),
        )

    def show(self, rendered: render.Rendered, policies: int) -> None:
        self.policies.set(float(policies - len(rendered.rejected)))
        self.rules.set(float(sum(len(chain.rules) for chain in rendered.ruleset.chains)))
        self.sets.set(float(len(rendered.sets)))
        self.entries.set(float(sum(len(one.members) for one in rendered.sets)))


class Agent:
    """run() returns only when it is cancelled. Chains and sets stay when it ends, so what is
    enforced stays enforced."""

    def __init__(self, client: Client, metrics: Metrics) -> None:
        self._metrics = metrics
        self._applier = Applier(names.SET_PREFIX)
        self._rejected: dict[ObjectKey, str] = {}
        self._follower = Follower(client, ("NetworkPolicy",), self._changed)

    async def run(self) -> None:
        await self._follower.run()

    async def _changed(self, state: State, _: Changes) -> None:
        started = time.monotonic()
        rendered = render.render(state)
        for key, reason in rendered.rejected.items():
            if self._rejected.get(key) != reason:
                log.error("%s is not enforced: %s", key, reason)
        self._rejected = dict(rendered.rejected)
        await self._applier.settle(rendered.ruleset, rendered.sets, self._failed)
        self._metrics.show(rendered, len(state.policies))
        self._metrics.seconds.observe((time.monotonic() - started) * 1000)

    def _failed(self, error: Exception) -> None:
        log.error("%s", error)
