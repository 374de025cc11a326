"""The order in which pods are tried, and when they are tried again."""

from __future__ import annotations

import asyncio

from kubewire.components.scheduler.podspec import PodInfo
from kubewire.components.scheduler.queue import INITIAL_BACKOFF, SchedulingQueue
from tests.components.controllers.objects import pod


def info(name, **spec):
    return PodInfo.of(pod(name, node=None, spec=spec))


async def is_idle(queue):
    try:
        await asyncio.wait_for(queue.pop(), 0.02)
    except TimeoutError:
        return True
    return False


def test_higher_priority_first_then_first_come():
    async def scenario():
        queue = SchedulingQueue()
        for item in (info("a"), info("b", priority=10), info("c", priority=10), info("d")):
            queue.add(item)
        return [(await queue.pop()).name for _ in range(4)]

    assert asyncio.run(scenario()) == ["b", "c", "a", "d"]


def test_an_unschedulable_pod_waits_for_a_change_and_then_for_its_backoff():
    async def scenario():
        queue = SchedulingQueue()
        queue.add(info("a"))
        await queue.pop()
        queue.unschedulable(("default", "a"))
        assert await is_idle(queue)
        queue.move_all()
        began = asyncio.get_running_loop().time()
        again = await asyncio.wait_for(queue.pop(), 5)
        waited = asyncio.get_running_loop().time() - began
        return again.name, waited

    name, waited = asyncio.run(scenario())
    assert name == "a"
    assert INITIAL_BACKOFF * 0.8 < waited < INITIAL_BACKOFF * 2


def test_a_pod_that_came_helps_only_those_that_want_company():
    async def scenario():
        queue = SchedulingQueue()
        term = {"topologyKey": "h", "labelSelector": {"matchLabels": {"app": "db"}}}
        near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        queue.add(info("alone"))
        queue.add(info("near", affinity=near))
        for _ in range(2):
            queue.unschedulable((await queue.pop()).key)
        queue.move_all(only_with_affinity=True)
        return (await asyncio.wait_for(queue.pop(), 5)).name, await is_idle(queue)

    assert asyncio.run(scenario()) == ("near", True)


def test_its_own_status_does_not_wake_a_pod_but_a_changed_spec_does():
    async def scenario():
        queue = SchedulingQueue()
        queue.add(info("a"))
        queue.unschedulable((await queue.pop()).key)
        queue.add(info("a"))
        idle = await is_idle(queue)
        queue.add(info("a", tolerations=[{"operator": "Exists"}]))
        return idle, (await asyncio.wait_for(queue.pop(), 1)).tolerations

    assert asyncio.run(scenario()) == (True, ({"operator": "Exists"},))


def test_a_pod_that_is_gone_is_not_tried():
    async def scenario():
        queue = SchedulingQueue()
        queue.add(info("a"))
        queue.remove(("default", "a"))
        return await is_idle(queue), len(queue)

    assert asyncio.run(scenario()) == (True, 0)
