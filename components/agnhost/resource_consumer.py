"""agnhost resource-consumer: uses as much CPU and memory as it is asked to
(resource-consumer/resource_consumer_handler.go).

Each request starts a child that uses what is asked for and ends after its time, so the server
answers at once and goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping

from .flags import Flag, parse
from .http import HttpServer, Request, Respond, Response, error, listen_tcp, text
from .loop import Loop
from .netexec import stop_on_sigterm

#: Form fields of each path, besides durationSec.
_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "/ConsumeCPU": ("millicores",),
    "/ConsumeMem": ("megabytes",),
    "/BumpMetric": ("metric", "delta"),
}
_SLICE = 0.1


class Consumer:
    """The requests' answers, and the metrics that BumpMetric has raised until a moment."""

    def __init__(self, start: Callable[[Callable[[], None]], None]) -> None:
        self._start = start
        self._bumps: list[tuple[str, float, float]] = []

    def answer(self, request: Request, respond: Respond) -> None:
        respond(self._response(request))

    def _response(self, request: Request) -> Response:
        if request.path == "/metrics":
            return text(self._metrics())
        if request.path not in _ACTIONS:
            return error(f"unknown function: {request.path}", 404)
        if request.method != "POST":
            return error("incorrect method", 400)
        names = (*_ACTIONS[request.path], "durationSec")
        values = [request.form(name) for name in names]
        if not all(values):
            return error("not given function argument", 400)
        try:
            numbers = [
                float(value) for name, value in zip(names, values, strict=True) if name != "metric"
            ]
        except ValueError:
            return error("incorrect function argument", 400)
        self._consume(request.path, values[0], numbers[0], numbers[-1])
        said = "".join(f"{value} {name}\n" for name, value in zip(names, values, strict=True))
        return text(f"{request.path[1:]}\n{said}")

    def _consume(self, path: str, first: str, amount: float, seconds: float) -> None:
        match path:
            case "/ConsumeCPU":
                self._start(lambda: use_cpu(amount / 1000, seconds))
            case "/ConsumeMem":
                self._start(lambda: use_memory(int(amount), seconds))
            case "/BumpMetric":
                self._bumps.append((first, amount, time.monotonic() + seconds))

    def _metrics(self) -> str:
        now = time.monotonic()
        self._bumps = [bump for bump in self._bumps if bump[2] > now]
        sums: dict[str, float] = {}
        for name, delta, _ in self._bumps:
            sums[name] = sums.get(name, 0.0) + delta
        lines = [
            f"# HELP {name} info message.\n# TYPE {name} gauge\n{name} {total:g}\n"
            for name, total in sums.items()
        ]
        return "".join(lines)


def use_cpu(cores: float, seconds: float) -> None:
    """Computes for that part of the time; more than one core needs a process for each."""
    for _ in range(max(int(cores - 1e-9), 0)):
        if os.fork() == 0:
            _compute(1.0, seconds)
            os._exit(0)
    _compute(cores - max(int(cores - 1e-9), 0), seconds)


def _compute(share: float, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        until = time.process_time() + share * _SLICE
        slice_end = time.monotonic() + _SLICE
        while time.process_time() < until and time.monotonic() < end:
            sum(range(1000))
        time.sleep(max(slice_end - time.monotonic(), 0))


def use_memory(megabytes: int, seconds: float) -> None:
    """Holds memory; all its pages are written, so they are there."""
    held = bytearray(os.urandom(4096) * 256 * megabytes)
    time.sleep(seconds)
    del held


def _child(work: Callable[[], None]) -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        work()
    finally:
        os._exit(0)


def main(argv: list[str]) -> int:
    """Serves until SIGTERM."""
    values, _ = parse("resource-consumer", (Flag("port", 8080, "Port number."),), argv)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    loop = Loop()
    stop_on_sigterm(loop, 2)
    HttpServer(loop, listen_tcp(int(values["port"])), Consumer(_child).answer)
    loop.run()
    return 0
