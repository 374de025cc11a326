"""prometheus: serves /metrics with CoreDNS's metric names (https://coredns.io/plugins/metrics/)."""

from __future__ import annotations

import time

from aiohttp import web

from kubewire.components.base.prometheus import CONTENT_TYPE, Registry
from kubewire.components.coredns.message import RCODES, SERVFAIL, Request, Response, encode
from kubewire.components.coredns.plugin import Next, Setup, Zones, longest_zone

_SECONDS = tuple(0.00025 * 2**i for i in range(16))
_SIZES = (
    0.0,
    100.0,
    200.0,
    300.0,
    400.0,
    511.0,
    1023.0,
    2047.0,
    4095.0,
    8291.0,
    16e3,
    32e3,
    48e3,
    64e3,
)
_KNOWN_TYPES = frozenset(
    "AAAA A CNAME DNSKEY DS HTTPS MX NSEC3 NSEC NS PTR RRSIG SOA SRV TXT ANY HINFO".split(),
)  # fmt: skip


class Prometheus:
    name = "prometheus"

    def __init__(self, registry: Registry, server: str, zones: Zones) -> None:
        self._server = server
        self._zones = zones
        labels = ("server", "zone", "view")
        self._requests = registry.counter(
            "coredns_dns_requests_total",
            "Counter of DNS requests made per zone, protocol and family.",
            *labels, "proto", "family", "type",
        )  # fmt: skip
        self._seconds = registry.histogram(
            "coredns_dns_request_duration_seconds",
            "Histogram of the time (in seconds) each request took per zone.",
            *labels,
            buckets=_SECONDS,
        )
        self._sizes = registry.histogram(
            "coredns_dns_request_size_bytes",
            "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
            *labels, "proto",
            buckets=_SIZES,
        )  # fmt: skip
        self._answers = registry.histogram(
            "coredns_dns_response_size_bytes",
            "Size of the returned response in bytes.",
            *labels, "proto",
            buckets=_SIZES,
        )  # fmt: skip
        self._responses = registry.counter(
            "coredns_dns_responses_total",
            "Counter of response status codes.",
            *labels,
            "rcode",
            "plugin",
        )

    async def serve(self, request: Request, following: Next) -> Response:
        labels = (self._server, longest_zone(request.name, self._zones) or "dropped", "")
        family = "2" if ":" in request.peer.rsplit(":", 1)[0].strip("[]") else "1"
        kind = request.type_name if request.type_name in _KNOWN_TYPES else "other"
        self._requests.inc(*labels, request.transport, family, kind)
        buffer_size = 65535 if request.transport == "tcp" else request.udp_size or 512
        self._sizes.observe(buffer_size, *labels, request.transport)
        started = time.perf_counter()
        response = Response(SERVFAIL)
        try:
            response = await following(request)
            return response
        finally:
            self._seconds.observe(time.perf_counter() - started, *labels)
            rcode = RCODES.get(response.rcode, str(response.rcode))
            self._responses.inc(*labels, rcode, response.plugin)
            self._answers.observe(len(encode(request, response)), *labels, request.transport)


def setup(setup: Setup) -> Prometheus:
    (line,) = setup.lines[:1]
    if len(line.args) > 1:
        line.wrong_arguments()
    registry = setup.registry

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=registry.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    setup.site.page(line.args[0] if line.args else "localhost:9153", "/metrics", page)
    return Prometheus(registry, setup.server, setup.zones)
