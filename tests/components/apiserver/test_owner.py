"""The owner thread and its workers: what fails in a worker is freed there."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from kubewire.components.apiserver.owner import OwnerThread

T = TypeVar("T")


class Large:
    """Stands for the values of a large request."""

    def __init__(self, freed_in: list[str]) -> None:
        weakref.finalize(self, lambda: freed_in.append(threading.current_thread().name))


@pytest.fixture
def no_collector() -> Iterator[None]:
    """So that only reference counting frees; the workers turn the collector on and off themselves."""
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    yield
    gc.set_threshold(*thresholds)


def soon(look: Callable[[], T]) -> T:
    """The worker returns from its last frames after the answer has begun."""
    deadline = time.monotonic() + 5
    while not look() and time.monotonic() < deadline:
        time.sleep(0.01)
    return look()


def failing_in_a_worker(owner: OwnerThread, freed_in: list[str]) -> None:
    def inner() -> None:
        large = Large(freed_in)
        raise ValueError(f"it was {large}")

    try:
        inner()
    except ValueError as error:
        raise LookupError("wrapped") from error


def failing_in_the_owners_step(owner: OwnerThread, freed_in: list[str]) -> None:
    large = Large(freed_in)

    def step(value: Large) -> None:
        raise LookupError(f"it was {value}")

    owner.call(step, large)


@pytest.mark.parametrize("work", [failing_in_a_worker, failing_in_the_owners_step])
def test_a_worker_frees_what_its_failed_request_worked_on(no_collector: None, work: object) -> None:
    freed_in: list[str] = []

    async def ask() -> None:
        owner = OwnerThread()
        with pytest.raises(LookupError):
            await owner.run(lambda: work(owner, freed_in))  # type: ignore[operator]

    asyncio.run(ask())
    assert soon(lambda: freed_in) == ["long-request-1"]


def test_an_error_of_a_worker_is_freed_without_the_collector(no_collector: None) -> None:
    class Failure(Exception):
        pass

    def fail() -> None:
        raise Failure

    async def ask(in_step: bool) -> weakref.ref[Failure]:
        owner = OwnerThread()
        try:
            await owner.run(lambda: owner.call(fail) if in_step else fail())
        except Failure as error:
            return weakref.ref(error)
        raise AssertionError("it must fail")

    failed = [asyncio.run(ask(in_step)) for in_step in (False, True)]
    assert soon(lambda: all(failure() is None for failure in failed))
