"""A peer's HTTP API: the CNI plugins and `weave` use it on 127.0.0.1:6784; its read-only part is
also on port 6782.

(github.com/weaveworks/weave, ipam/http.go, prog/weaver/http.go and reclaim in the weave script.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from aiohttp import web

from kubewire.components.networks.weave.allocator import Denied

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Addresses(Protocol):
    """The operations on addresses that the API offers."""

    async def allocate(self, container: str, subnet: IPv4Network) -> int:
        """Waits until an address is available. Raises Denied."""
        ...

    async def claim(self, container: str, address: int) -> None:
        """Raises Denied."""
        ...

    def lookup(self, container: str, subnet: IPv4Network) -> list[int]: ...

    def containers(self) -> list[str]: ...

    def release(self, container: str) -> None:
        """Raises Denied."""
        ...

    def free(self, container: str, address: int) -> None:
        """Raises Denied."""
        ...

    def takeover(self, peer: str) -> int: ...

    def shutdown(self) -> None: ...


_REPORTS = ("", "peers", "connections", "targets", "ipam")


def reports(report: Callable[[str], str]) -> web.Application:
    """Only the read-only part. report: returns the text of `weave status WHAT`."""
    app = web.Application(middlewares=[_refusals])
    for what in _REPORTS:
        app.router.add_get(f"/status/{what}".rstrip("/"), _text(partial(report, what)))
    return app


def application(
    peer: Addresses, default_subnet: IPv4Network, report: Callable[[str], str]
) -> web.Application:
    """The whole API. report: as for reports()."""
    app = reports(report)

    async def allocate(request: web.Request) -> web.Response:
        subnet = _subnet(request, default_subnet)
        address = await peer.allocate(request.match_info["id"], subnet)
        return web.Response(text=f"{IPv4Address(address)}/{subnet.prefixlen}")

    async def claim(request: web.Request) -> web.Response:
        await peer.claim(request.match_info["id"], _address(request))
        return web.Response(status=204)

    async def lookup(request: web.Request) -> web.Response:
        subnet = _subnet(request, default_subnet)
        addresses = peer.lookup(request.match_info["id"], subnet)
        return web.Response(
            text=" ".join(f"{IPv4Address(address)}/{subnet.prefixlen}" for address in addresses),
        )

    async def release(request: web.Request) -> web.Response:
        if "ip" in request.match_info:
            peer.free(request.match_info["id"], _address(request))
        else:
            peer.release(request.match_info["id"])
        return web.Response(status=204)

    async def remove_peer(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return web.Response(text=f"{peer.takeover(name)} IPs taken over from {name}\n")

    async def shutdown(_: web.Request) -> web.Response:
        peer.shutdown()
        return web.Response(status=204)

    app.router.add_get("/ipinfo/defaultsubnet", _text(lambda: str(default_subnet)))
    app.router.add_get("/ip", _text(lambda: "".join(f"{name}\n" for name in peer.containers())))
    for path in ("/ip/{id}", "/ip/{id}/{ip}/{prefixlen}"):
        app.router.add_post(path, allocate)
        app.router.add_get(path, lookup)
    app.router.add_put("/ip/{id}/{ip}/{prefixlen}", claim)
    app.router.add_delete("/ip/{id}", release)
    app.router.add_delete("/ip/{id}/{ip}", release)
    app.router.add_delete("/peer/{id}", remove_peer)
    app.router.add_delete("/peer", shutdown)
    return app


async def serve(sites: Sequence[tuple[str, web.Application]]) -> None:
    """Serves each application at its HOST:PORT until cancelled. Raises OSError if a port is in
    use."""
    runners = []
    try:
        for address, application in sites:
            host, _, port = address.rpartition(":")
            runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, host, int(port), shutdown_timeout=0.1).start()
        await asyncio.Event().wait()
    finally:
        for runner in runners:
            await runner.cleanup()


def _text(say: Callable[[], str]) -> _Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=say())

    return handler


@web.middleware
async def _refusals(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answers 400 with upstream's text."""
    try:
        return await handler(request)
    except (Denied, ValueError) as error:
        return web.Response(status=400, text=f"{error}\n")


def _subnet(request: web.Request, default: IPv4Network) -> IPv4Network:
    if "ip" not in request.match_info:
        return default
    return IPv4Network(f"{request.match_info['ip']}/{request.match_info['prefixlen']}")


def _address(request: web.Request) -> int:
    return int(IPv4Address(request.match_info["ip"]))
