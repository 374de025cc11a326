"""kube-network-policies on packets: every truth table, and what happens while nobody answers."""

from __future__ import annotations

import asyncio

import pytest

from kubewire.components.kernel.nfqueue import QueueSocket
from kubewire.components.policy.applier import Applier
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.kube_network_policies import render
from kubewire.components.policy.engines.kube_network_policies.agent import Judge, Metrics
from kubewire.components.policy.model import Changes, State
from tests.components.policy import truth
from tests.components.policy.ground import differences
from tests.components.policy.packets import EVERYTHING, HOSTS, failures, routed
from tests.scratch import isolated

CASES = [case for case in truth.CASES if not case.requires]
NODES = ("worker-1", "worker-2", "worker-3")
pytestmark = pytest.mark.packet


class Engine:
    """The agent without its API client. All pods are on this one node, whatever their objects say."""

    def __init__(self, *, fail_open: bool) -> None:
        self._options = render.Options("", fail_open=fail_open)
        self._judge = Judge(fail_open, Metrics())
        self._applier = Applier(render.SETS[4])
        self.queue = QueueSocket(100, fail_open=fail_open)

    async def enforce(self, state: State) -> None:
        self._judge.update(state, Changes(endpoints=frozenset(state.endpoints), tiers=True))
        members = [
            member for node in NODES for one in render.sets(state, render.Options(node), 4) for member in one.members
        ]
        (wanted,) = render.sets(state, self._options, 4)
        every = (type(wanted)(wanted.name, wanted.kind, tuple(members)),)
        await self._applier.apply(render.ruleset(self._options, 4), every)

    def answer(self) -> None:
        self._judge.answer(self.queue)


@pytest.mark.parametrize("part", [0, 1])
def test_every_truth_table(part: int) -> None:
    assert isolated(_failures, part, timeout=250) == {}


def _failures(part: int) -> dict[str, str]:
    with routed("10.244.0", "veth").listening() as place:
        with place.hosts.inside("node"):
            engine = Engine(fail_open=False)
        place.attend(engine.queue, engine.answer)
        return failures(place, "node", engine.enforce, CASES[part::2])


@pytest.mark.parametrize(("fail_open", "passes"), [(True, True), (False, False)], ids=["fail-open", "fail-closed"])
def test_while_nobody_answers(fail_open: bool, passes: bool) -> None:
    """Also what the policy would allow is closed; pods without a policy are open either way."""
    assert isolated(_nobody, fail_open, passes, timeout=100) == ""


def _nobody(fail_open: bool, passes: bool) -> str:
    compiler = Compiler()
    with routed("10.244.0", "veth").listening() as place:
        addresses = {pod: place.addresses[host] for pod, host in HOSTS.items()}
        for obj in truth.world(addresses):
            compiler.apply(obj)
        compiler.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "x"},
                "spec": {"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{}]},
            }
        )
        with place.hosts.inside("node"):
            engine = Engine(fail_open=fail_open)
            asyncio.run(engine.enforce(compiler.state))
        engine.queue.close()
        expected = [one for one in EVERYTHING if passes or "x-a" not in {one.source, one.destination}]
        return differences(place.reached(EVERYTHING, expected), expected)
