"""reload: makes the process check its Corefile for changes every interval, plus or minus a jitter
(https://coredns.io/plugins/reload/). The jitter keeps replicas from reloading at the same time."""

from __future__ import annotations

from kubewire.components.coredns.message import Request, Response
from kubewire.components.coredns.plugin import Next, Setup
from kubewire.components.coredns.plugins import parsing

_INTERVAL = 30.0
_JITTER = 15.0
_MIN_INTERVAL = 2.0
_MIN_JITTER = 1.0


class Reload:
    name = "reload"

    async def serve(self, request: Request, following: Next) -> Response:
        return await following(request)


def setup(setup: Setup) -> Reload:
    (line,) = setup.lines[:1]
    if len(line.args) > 2:
        line.wrong_arguments()
    interval = parsing.duration(line, line.args[0]) if line.args else _INTERVAL
    jitter = min(_JITTER, interval / 2)
    if len(line.args) > 1:
        jitter = parsing.duration(line, line.args[1])
    if interval < _MIN_INTERVAL:
        line.fail(f"interval value must be greater or equal to {_MIN_INTERVAL:g}s")
    if jitter < _MIN_JITTER:
        line.fail(f"jitter value must be greater or equal to {_MIN_JITTER:g}s")
    setup.reload_every(interval, min(jitter, interval / 2))
    return Reload()
