"""Which thread does what: the event loop's thread owns the state, and long work runs beside it.

A request that is much work (a body of many values, a list of many objects) runs in a worker thread, so that the loop
goes on answering the others. The worker runs the same code; what touches shared state (the store's writes and
listings, the allocator) is handed to the owner thread, one step at a time. A write compares the revision it read with
the one that is there (etcd's transaction), so another write in between is noticed and the request is done anew, as
upstream's GuaranteedUpdate does."""

from __future__ import annotations

import asyncio
import gc
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

#: Long requests at the same time. They share the interpreter lock with the loop, which waits for each of them.
_WORKERS = 3
#: Seconds a thread keeps the interpreter lock while another wants it (CPython's default is 5 ms). A request takes
#: the lock several times, so this bounds how much longer it takes beside the workers.
_SWITCH_SECONDS = 0.001


class OwnerThread:
    """The thread this object is made in. run() is the loop's way to a worker, call() a worker's way back."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = 0
        self._lock = threading.Lock()
        self._busy = 0

    def call(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """step(...) in the owner thread: at once when this is it, else between two of its callbacks."""
        if threading.get_ident() == self._thread:
            return step(*args, **kwargs)
        assert self._loop is not None, "workers are started by run()"
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: _settle(done, lambda: step(*args, **kwargs)))
        return done.result()

    async def run(self, work: Callable[[], T]) -> T:
        """work() in a worker thread. Cancelling gives up waiting; work that has begun goes on to its end."""
        self._loop = asyncio.get_running_loop()
        job: Future[T] = Future()
        self._jobs.put(partial(self._do, job, work))
        if self._started < _WORKERS:
            self._start_worker()
        try:
            return await asyncio.wrap_future(job)
        finally:
            # An exception leads to this frame and the job to the exception: no cycle may keep a large request.
            del job

    def _start_worker(self) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._started += 1
        # A daemon: what is half done when the server ends was not acknowledged.
        threading.Thread(target=self._work, name=f"long-request-{self._started}", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    def _do(self, job: Future[Any], work: Callable[[], Any]) -> None:
        if not job.set_running_or_notify_cancel():
            return
        # A full collection looks at every value of a large request, and stops all threads while it does. Values of
        # JSON have no cycles: counting references frees them.
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


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        del future  # as above
    else:
        future.set_result(result)
