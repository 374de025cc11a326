"""log: logs one line per query (https://coredns.io/plugins/log/)."""

from __future__ import annotations

import logging
import time

from kubewire.components.coredns.message import NXDOMAIN, RCODES, Request, Response, encode
from kubewire.components.coredns.plugin import Next, Setup, Zones, longest_zone, zones_of
from kubewire.components.coredns.plugins import parsing

log = logging.getLogger("coredns")
_CLASSES = frozenset({"all", "success", "denial", "error"})


class Log:
    name = "log"

    def __init__(self, zones: Zones, classes: frozenset[str]) -> None:
        self._zones = zones
        self._classes = classes

    async def serve(self, request: Request, following: Next) -> Response:
        if not longest_zone(request.name, self._zones):
            return await following(request)
        started = time.perf_counter()
        response = await following(request)
        if "all" in self._classes or _class(response) in self._classes:
            log.info("%s", _text(request, response, time.perf_counter() - started))
        return response


def _class(response: Response) -> str:
    if response.rcode == NXDOMAIN or (not response.rcode and not response.answer):
        return "denial"
    return "error" if response.rcode else "success"


def _text(request: Request, response: Response, took: float) -> str:
    """CoreDNS's common log format."""
    flags = [
        "qr",
        *(["aa"] if response.authoritative else []),
        *(["tc"] if response.truncated else []),
        *(["rd"] if request.recursion_desired else []),
        *(["ra"] if response.recursion_available else []),
    ]
    size = len(encode(request, response))
    question = (
        f"{request.type_name} {request.class_name} {request.name}"
        f" {request.transport} {request.size}"
        f" {str(request.dnssec_ok).lower()} {request.udp_size or 512}"
    )
    rcode = RCODES.get(response.rcode, response.rcode)
    result = f"{rcode} {','.join(flags)} {size} {took:.9f}s"
    return f'{request.peer} - {request.id} "{question}" {result}'


def setup(setup: Setup) -> Log:
    zones: Zones = ()
    classes: frozenset[str] = frozenset()
    for line in setup.lines:
        zones += zones_of(line.args[:1], setup.zones)
        for item in line.block:
            if item.name != "class":
                parsing.unknown(item)
            if wrong := set(parsing.some(item)) - _CLASSES:
                item.fail(f"invalid class: {min(wrong)}")
            classes |= frozenset(item.args)
    return Log(zones or setup.zones, classes or frozenset({"all"}))
