"""ready: /ready answers OK once every plugin that reports readiness has been ready
(https://coredns.io/plugins/ready/)."""

from __future__ import annotations

from aiohttp import web

from kubewire.components.coredns.message import Request, Response
from kubewire.components.coredns.plugin import Next, Readiness, Setup


class Ready:
    name = "ready"

    def __init__(self, readiness: dict[str, Readiness]) -> None:
        self._waiting = readiness

    async def serve(self, request: Request, following: Next) -> Response:
        return await following(request)

    async def page(self, _: web.Request) -> web.Response:
        for name in [name for name, plugin in self._waiting.items() if plugin.ready()]:
            del self._waiting[name]
        if self._waiting:
            names = sorted(name.partition("@")[0] for name in self._waiting)
            return web.Response(status=503, text=",".join(names))
        return web.Response(text="OK")


def setup(setup: Setup) -> Ready:
    (line,) = setup.lines[:1]
    if len(line.args) > 1:
        line.wrong_arguments()
    plugin = Ready(setup.readiness)
    setup.site.page(line.args[0] if line.args else ":8181", "/ready", plugin.page)
    return plugin
