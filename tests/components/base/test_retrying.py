"""Delays between attempts, without waiting for them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kubewire.components.base.retrying import GrowingDelay, until_answered


def test_a_delay_doubles_up_to_the_longest_and_begins_anew_after_a_success() -> None:
    delay = GrowingDelay(0.5, 3.0)
    assert [delay.take() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    delay.reset()
    assert delay.take() == 0.5


def test_a_delay_may_grow_more_slowly() -> None:
    delay = GrowingDelay(2.0, 4.0, factor=1.5)
    assert [delay.take() for _ in range(4)] == [2.0, 3.0, 4.0, 4.0]


def test_what_is_transient_is_tried_again_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    outcomes: list[Exception | str] = [OSError("no"), TimeoutError(), "yes", KeyError("never asked")]

    async def ask() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    delay = GrowingDelay(0.1, 1.0)
    assert asyncio.run(until_answered(ask, (OSError, TimeoutError), delay, logging.getLogger())) == "yes"
    assert slept == [0.1, 0.2]
    with pytest.raises(KeyError):
        asyncio.run(until_answered(ask, (OSError,), delay, logging.getLogger()))
