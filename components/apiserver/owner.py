"""The three kinds of threads: the owner thread, which runs the event loop, workers for long
requests, and waiting threads for requests that ask other programs.

A request that takes much work, such as a body of many values or a list of many objects, runs in a
worker thread, so that the loop continues to answer others. The worker runs the same code.
Everything that touches shared state (the store's writes and listings, the allocator) is passed to
the owner thread and runs there as one step, so that the state needs no locks. A write compares the
revision that it read with the stored one, as a transaction in etcd does. If another write came in
between, the request is repeated, as upstream's GuaranteedUpdate does.

A request that calls webhooks waits most of its time. It must not take a worker from others, nor
wait for one that itself waits for a webhook, so it runs in a waiting thread. There wait_for() runs
a coroutine in the loop and blocks until it is done.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

#: The most long requests at a time. They share the interpreter lock with the event loop, which
#: waits for each of them.
_WORKERS = 3
#: Seconds for which a thread keeps the interpreter lock while another waits for it (CPython's
#: default is 5 ms). A short request takes the lock several times, so this limits how much the
#: workers delay it.
_SWITCH_SECONDS = 0.001
#: The most requests that wait for other programs at a time; upstream admits 200 writes.
_WAITING = 200


class OwnerThread:
    """The thread that creates this object.

    The event loop passes work to a worker with run(), and a worker passes steps back with call().
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers = _Threads("long-request", _WORKERS)
        self._waiting = _Threads("waiting-request", _WAITING)
        self._lock = threading.Lock()
        self._busy = 0

    def call(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs step(...) in the owner thread: at once in that thread, otherwise between two
        callbacks.
        """
        if threading.get_ident() == self._thread:
            return step(*args, **kwargs)
        assert self._loop is not None, "workers are started by run()"
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(_settle, done, partial(step, *args, **kwargs))
        return done.result()

    async def run(self, work: Callable[[], T]) -> T:
        """Runs work() in a worker thread.

        Cancelling only ends the wait: work that has begun runs to its end.
        """
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_SECONDS)
        job: Future[T] = Future()
        self._workers.put(partial(self._do, job, work))
        try:
            return await asyncio.wrap_future(job)
        finally:
            # The job refers to its exception, whose traceback refers to this frame. Without this
            # deletion the cycle would keep a large request in memory.
            del job

    async def run_waiting(self, work: Callable[[], T]) -> T:
        """Runs work() in a waiting thread, which may block. Cancelling only ends the wait."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_SECONDS)
        job: Future[T] = Future()
        self._waiting.put(partial(_settle_wanted, job, work))
        try:
            return await asyncio.wrap_future(job)
        finally:
            del job  # As in run().

    @property
    def may_wait(self) -> bool:
        """Whether this thread may block: not the owner thread, which answers everybody."""
        return threading.get_ident() != self._thread

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the owner thread's loop, and blocks this waiting thread until its
        end.
        """
        assert self._loop is not None and self.may_wait
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _do(self, job: Future[Any], work: Callable[[], Any]) -> None:
        if not job.set_running_or_notify_cancel():
            return
        # A full garbage collection visits every value of a large request and stops all threads
        # meanwhile. It is not needed: JSON values have no cycles, so reference counting frees
        # them.
        with self._lock:
            self._busy += 1
            gc.disable()
        try:
            _settle(job, work)
        finally:
            with self._lock:
                self._busy -= 1
                if not self._busy:
                    gc.enable()
            # _settle's frame, which the traceback of an exception keeps, leads back to this one.
            del job


class _Threads:
    """Up to `most` threads, each started when a job finds no idle one. Owner thread only."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = 0
        self._idle = threading.Semaphore(0)

    def put(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if self._idle.acquire(blocking=False) or self._started == self._most:
            return
        self._started += 1
        # A daemon thread may end in the middle of a request, because that is not acknowledged yet.
        threading.Thread(
            target=self._work, name=f"{self._name}-{self._started}", daemon=True
        ).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()


def _settle_wanted(job: Future[Any], work: Callable[[], Any]) -> None:
    if not job.set_running_or_notify_cancel():
        return
    try:
        _settle(job, work)
    finally:
        del job  # As in OwnerThread._do.


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as error:
        _free_locals(error)
        future.set_exception(error)
        # The traceback keeps this frame. The first deletion breaks the same cycle as in run(), the
        # second frees a step's arguments if this is the owner thread.
        del future, work
    else:
        future.set_result(result)


def _free_locals(error: BaseException) -> None:
    """Frees what the failed functions worked on, which may be most of a large request.

    Otherwise the traceback keeps it until the thread that answers drops the error, and that thread
    would spend its time on freeing.
    """
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
