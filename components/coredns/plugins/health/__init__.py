"""health: /health answers OK while the process runs (https://coredns.io/plugins/health/).

`lameduck` delays the end of the process after SIGTERM: it goes on answering queries until clients
no longer send any, because the pod is no longer an endpoint of its Service.
"""

from __future__ import annotations

from aiohttp import web

from kubewire.components.coredns.message import Request, Response
from kubewire.components.coredns.plugin import Next, Setup
from kubewire.components.coredns.plugins import parsing


class Health:
    name = "health"

    async def serve(self, request: Request, following: Next) -> Response:
        return await following(request)


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="OK")


def setup(setup: Setup) -> Health:
    (line,) = setup.lines[:1]
    if len(line.args) > 1:
        line.wrong_arguments()
    for item in line.block:
        if item.name != "lameduck":
            parsing.unknown(item)
        setup.lameduck(parsing.duration(item, parsing.one(item)))
    setup.site.page(line.args[0] if line.args else ":8080", "/health", _ok)
    return Health()
