"""The work queue: one entry per key, one worker per key at a time, back-off."""

import asyncio
import logging

import pytest

from kubewire.components.controllers.workqueue import WorkQueue
from kubewire.components.kubeapi.client import ApiError, ApiUnavailable


def test_a_key_added_twice_is_worked_on_once() -> None:
    async def scenario() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("a")
        queue.add("b")
        return [await queue.get() for _ in range(len(queue))]

    assert asyncio.run(scenario()) == ["a", "b"]


def test_a_key_added_while_it_is_worked_on_runs_again_afterwards_and_never_in_parallel() -> None:
    async def scenario() -> tuple[int, int]:
        queue: WorkQueue[str] = WorkQueue()
        running, most, runs = 0, 0, 0
        finished = asyncio.Event()

        async def work(key: str) -> None:
            nonlocal running, most, runs
            running += 1
            most = max(most, running)
            runs += 1
            if runs == 1:
                queue.add(key)
                await asyncio.sleep(0)
            else:
                finished.set()
            running -= 1

        queue.add("a")
        task = asyncio.ensure_future(queue.run(work, workers=4))
        await asyncio.wait_for(finished.wait(), 5)
        task.cancel()
        return most, runs

    assert asyncio.run(scenario()) == (1, 2)


def test_a_failing_key_comes_back_until_it_succeeds() -> None:
    async def scenario() -> int:
        queue: WorkQueue[str] = WorkQueue(base_delay=0.0001)
        tries = 0
        done = asyncio.Event()

        async def work(_: str) -> None:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise ValueError("not yet")
            done.set()

        queue.add("a")
        task = asyncio.ensure_future(queue.run(work))
        await asyncio.wait_for(done.wait(), 5)
        task.cancel()
        return tries

    assert asyncio.run(scenario()) == 4


def test_of_two_timers_for_a_key_the_earlier_one_counts() -> None:
    async def scenario() -> float:
        queue: WorkQueue[str] = WorkQueue()
        loop = asyncio.get_running_loop()
        began = loop.time()
        queue.add_after("a", 30)
        queue.add_after("a", 0.01)
        queue.add_after("a", 60)
        await asyncio.wait_for(queue.get(), 5)
        return loop.time() - began

    assert asyncio.run(scenario()) < 5


_QUOTA = 'pods "web-1" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'
_ENDING = 'pods "web-1" is forbidden: unable to create new content in namespace shop because it is being terminated'


@pytest.mark.parametrize(
    ("error", "level", "traceback"),
    [
        pytest.param(ApiError(403, "Forbidden", _QUOTA), logging.WARNING, False, id="quota-exceeded"),
        pytest.param(ApiError(403, "Forbidden", _ENDING), logging.WARNING, False, id="namespace-terminating"),
        pytest.param(ApiError(422, "Invalid", "spec: Required value"), logging.WARNING, False, id="invalid"),
        pytest.param(ApiError(409, "Conflict", "the object has been modified"), logging.DEBUG, False, id="conflict"),
        pytest.param(ApiUnavailable("connection refused"), logging.DEBUG, False, id="no-answer"),
        pytest.param(ValueError("a fault of ours"), logging.WARNING, True, id="a-fault-shows-where-it-is"),
    ],
)
def test_a_refusal_is_logged_in_one_line(
    error: Exception, level: int, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        failed = asyncio.Event()

        async def work(_: str) -> None:
            failed.set()
            raise error

        queue.add("shop/web")
        task = asyncio.ensure_future(queue.run(work))
        await asyncio.wait_for(failed.wait(), 30)
        await asyncio.sleep(0)
        task.cancel()

    with caplog.at_level(logging.DEBUG, "kubewire.components.controllers.workqueue"):
        asyncio.run(scenario())
    (record,) = (one for one in caplog.records if one.name.endswith("workqueue"))
    assert (record.getMessage(), record.levelno) == (f"shop/web: {error}", level)
    assert bool(record.exc_info) is traceback
