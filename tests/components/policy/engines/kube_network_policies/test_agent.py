"""How the agent shares its time, and when it takes its rules away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from kubewire.components.kernel.nfqueue import Queued
from kubewire.components.policy.engines.kube_network_policies import agent, render
from kubewire.components.policy.engines.kube_network_policies.agent import Agent, Judge, Metrics


class Waiting:
    """A queue in which packets wait without end, as a pod that floods it makes it."""

    def __init__(self) -> None:
        self.answers = 0

    def received(self) -> Iterator[Queued]:
        while True:
            yield Queued(1, b"")

    def answer(self, packet: Queued, *, accepted: bool) -> None:
        self.answers += 1


def test_a_flood_does_not_hold_the_loop() -> None:
    queue: Any = Waiting()
    Judge(False, Metrics()).answer(queue)
    assert queue.answers == 64


class Closed:
    """A queue that nobody fills."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("fail_open", "ends", "removed"),
    [(False, "asked", True), (False, "failed", False), (True, "asked", False)],
    ids=["fail-closed, asked to end", "fail-closed, after an error", "fail-open, asked to end"],
)
def test_the_rules_go_only_when_a_fail_closed_agent_is_asked_to_end(
    fail_open: bool, ends: str, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    async def remove(self: Agent) -> None:
        taken.append(True)

    async def follow() -> None:
        if ends == "failed":
            raise KeyError("a defect")
        await asyncio.Event().wait()

    async def body() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "add_reader", lambda *_: None, raising=False)
        monkeypatch.setattr(loop, "remove_reader", lambda *_: None, raising=False)
        nobody: Any = None
        one = Agent(render.Options("n", fail_open=fail_open), nobody, Metrics())
        monkeypatch.setattr(one._follower, "run", follow)
        running = asyncio.ensure_future(one.run())
        await asyncio.sleep(0)
        if ends == "asked":
            running.cancel()
        with pytest.raises((KeyError, asyncio.CancelledError)):
            await running

    monkeypatch.setattr(agent, "QueueSocket", Closed)
    monkeypatch.setattr(Agent, "_remove", remove)
    asyncio.run(body())
    assert bool(taken) is removed
