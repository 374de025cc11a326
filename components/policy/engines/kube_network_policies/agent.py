"""kube-network-policies, the agent of one node: keeps the set of pods that policies select, and
answers the kernel's question about the first packet of each of their connections."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from itertools import islice

from kubewire.components.base.prometheus import Registry
from kubewire.components.kernel import iptables
from kubewire.components.kernel.iptables import Ruleset
from kubewire.components.kernel.nfqueue import QueueSocket
from kubewire.components.kubeapi.client import Client
from kubewire.components.policy.applier import Applier
from kubewire.components.policy.engines.kube_network_policies import packet, render
from kubewire.components.policy.evaluator import Evaluator
from kubewire.components.policy.follow import Follower
from kubewire.components.policy.model import Changes, State

log = logging.getLogger("kube-network-policies")
#: Packets that are answered before the loop may do something else.
_AT_ONCE = 64
KINDS = (
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
)


@dataclass(frozen=True)
class Options:
    """main.py makes them from the command line."""

    kubeconfig: str
    metrics_address: str
    render: render.Options


class Metrics:
    """Under upstream's names (pkg/dataplane)."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.packets = self.registry.counter(
            "kube_network_policies_packet_count",
            "Packets that were asked about",
            "protocol",
            "family",
            "verdict",
        )
        self.seconds = self.registry.histogram(
            "kube_network_policies_packet_process_time",
            "Microseconds until a packet had its verdict",
            "protocol",
            "family",
            buckets=(50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0, 25000.0),
        )


class Judge:
    """Answers for one packet after the other, with the newest state."""

    def __init__(self, fail_open: bool, metrics: Metrics) -> None:
        self._fail_open, self._metrics = fail_open, metrics
        self._evaluator: Evaluator | None = None

    def update(self, state: State, changes: Changes) -> None:
        if self._evaluator is None:
            self._evaluator = Evaluator(state)
        else:
            self._evaluator.update(state, changes)

    def answer(self, queue: QueueSocket) -> None:
        """Answers some of those that wait. The loop calls again for the others, and comes to
        changes of policies in between, whatever a pod sends."""
        for one in islice(queue.received(), _AT_ONCE):
            queue.answer(one, accepted=self.accepts(one.data))

    def accepts(self, data: bytes) -> bool:
        """Whether a packet may go on. What cannot be read is dropped, or passes with fail_open."""
        began = time.perf_counter()
        try:
            flow = packet.flow(data)
        except packet.Unreadable as error:
            log.error("Can not process packet, applying default policy: %s", error)
            return self._fail_open
        if self._evaluator is None:
            return self._fail_open
        verdict = self._evaluator.verdict(flow)
        labels = (flow.protocol, "IPv6" if ":" in flow.source else "IPv4")
        self._metrics.packets.inc(*labels, "accept" if verdict.allowed else "drop")
        self._metrics.seconds.observe((time.perf_counter() - began) * 1e6, *labels)
        if not verdict.allowed:
            log.info(
                "%s -> %s %s/%d: %s",
                flow.source,
                flow.destination,
                flow.protocol,
                flow.destination_port,
                verdict,
            )
        return verdict.allowed


class Agent:
    """run() returns only when it is cancelled. With fail_open the rules stay when it ends, and
    packets pass; without, the rules go when it is asked to end, as upstream's do, so that an agent
    that is taken away does not close the network. After an error, or a kill, they stay, and packets
    are dropped."""

    def __init__(self, options: render.Options, client: Client, metrics: Metrics) -> None:
        self._options = options
        self._judge = Judge(options.fail_open, metrics)
        self._appliers = {version: Applier(name, version) for version, name in render.SETS.items()}
        self._follower = Follower(client, KINDS, self._changed)

    async def run(self) -> None:
        """Raises OSError if the queue is taken."""
        loop = asyncio.get_running_loop()
        with QueueSocket(self._options.queue, fail_open=self._options.fail_open) as queue:
            loop.add_reader(queue, self._judge.answer, queue)
            try:
                await self._follower.run()
            except asyncio.CancelledError:
                if not self._options.fail_open:
                    await self._remove()
                raise
            finally:
                loop.remove_reader(queue)

    async def _changed(self, state: State, changes: Changes) -> None:
        """The judge knows a policy before its pods are asked about."""
        self._judge.update(state, changes)
        for version, applier in self._appliers.items():
            wanted = render.ruleset(self._options, version)
            sets = render.sets(state, self._options, version)
            await applier.settle(wanted, sets, self._failed)

    async def _remove(self) -> None:
        for version in self._appliers:
            text = f"*mangle\n-D POSTROUTING -j {render.CHAIN}\nCOMMIT\n"
            await iptables.restore(text, version)
            await iptables.ensure(Ruleset(owned=(("mangle", render.CHAIN),)), version)

    def _failed(self, error: Exception) -> None:
        log.error("%s", error)
