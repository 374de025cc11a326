"""reload: the Corefile is read again when it has changed (looked at every interval, plus or minus jitter)."""

from __future__ import annotations

from kubewire.components.coredns.message import Request, Response
from kubewire.components.coredns.plugin import Next, Setup
from kubewire.components.coredns.plugins import parsing

_INTERVAL, _JITTER, _MIN_INTERVAL, _MIN_JITTER = 30.0, 15.0, 2.0, 1.0


class Reload:
    name = "reload"

    async def serve(self, request: Request, following: Next) -> Response:
        return await following(request)


def setup(setup: Setup) -> Reload:
    (line,) = setup.lines[:1]
    if len(line.args) > 2:
        line.wrong_arguments()
    interval = parsing.duration(line, line.args[0]) if line.args else _INTERVAL
    jitter = parsing.duration(line, line.args[1]) if len(line.args) > 1 else min(_JITTER, interval / 2)
    if interval < _MIN_INTERVAL:
        line.fail(f"interval value must be greater or equal to {_MIN_INTERVAL:g}s")
    if jitter < _MIN_JITTER:
        line.fail(f"jitter value must be greater or equal to {_MIN_JITTER:g}s")
    setup.reload_every(interval, min(jitter, interval / 2))
    return Reload()
