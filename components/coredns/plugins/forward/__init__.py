"""forward: sends queries to other DNS servers (https://coredns.io/plugins/forward/).

There are no regular health checks. An upstream is probed only after a query to it has failed, and
then every `health_check` seconds until it answers; an upstream with more than `max_fails` failed
probes counts as down. An upstream without queries therefore costs nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dnslib import DNSError

from kubewire.components.coredns.addresses import address_family
from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import RCODES, REFUSED, Request, Response, decode_response
from kubewire.components.coredns.plugin import (
    Next,
    Setup,
    Zones,
    is_subdomain,
    longest_zone,
    zones_of,
)
from kubewire.components.coredns.plugins import parsing
from kubewire.components.coredns.upstream import Upstream

_DEADLINE = 5.0
_MAX_UPSTREAMS = 15
POLICIES = ("random", "round_robin", "sequential")


@dataclass
class Settings:
    zone: str
    addresses: tuple[tuple[str, int], ...]
    ignored: Zones = ()
    force_tcp: bool = False
    prefer_udp: bool = False
    max_fails: int = 2
    policy: str = "random"
    health_check: float = 0.5
    recursion_desired: bool = True
    max_concurrent: int = 0
    failfast: bool = False


class Forward:
    name = "forward"

    def __init__(self, setup: Setup, settings: Settings) -> None:
        self._settings = settings
        self._upstreams = [Upstream(host, port) for host, port in settings.addresses]
        self._turn = 0
        self._active = 0
        registry = setup.registry
        self._requests = registry.counter(
            "coredns_proxy_requests_total",
            "Counter of requests made per upstream.",
            "proxy_name",
            "to",
            "rcode",
        )
        self._failures = registry.counter(
            "coredns_proxy_healthcheck_failures_total",
            "Counter of the number of failed healthchecks.",
            "proxy_name",
            "to",
        )
        self._broken = registry.counter(
            "coredns_forward_healthcheck_broken_total",
            "Counter of the number of complete failures of the healthchecks.",
        )
        self._refused = registry.counter(
            "coredns_forward_max_concurrent_rejects_total",
            "Counter of the number of queries rejected because the concurrent queries were at maximum.",
        )

    async def serve(self, request: Request, following: Next) -> Response:
        settings = self._settings
        if not is_subdomain(request.name, settings.zone) or longest_zone(
            request.name,
            settings.ignored,
        ):
            return await following(request)
        if settings.max_concurrent and self._active >= settings.max_concurrent:
            self._refused.inc()
            return Response(REFUSED, plugin=self.name)
        self._active += 1
        try:
            return await self._ask(request)
        finally:
            self._active -= 1

    async def _ask(self, request: Request) -> Response:
        """Asks one upstream after the other until one answers or the deadline has passed.

        Upstreams that are down are skipped, unless all are. Raises the last failure.
        """
        deadline = time.monotonic() + _DEADLINE
        failed = 0
        error: Exception = TimeoutError("no upstream answered")
        ordered = self._ordered()
        for attempt in range(2 * len(ordered) + 1):
            upstream = ordered[attempt % len(ordered)]
            if time.monotonic() >= deadline:
                break
            if self._down(upstream):
                failed += 1
                if failed < len(ordered):
                    continue
                # All upstreams are down. The health checks themselves may be failing, so ask one
                # at random all the same.
                self._broken.inc()
                if self._settings.failfast:
                    break
                upstream = random.choice(ordered)
            try:
                return await self._exchange(upstream, request, deadline)
            except (OSError, DNSError) as failure:
                error = failure
                upstream.probe_soon()
        raise error

    def _ordered(self) -> list[Upstream]:
        upstreams = self._upstreams
        match self._settings.policy:
            case "random":
                return random.sample(upstreams, len(upstreams))
            case "round_robin":
                self._turn += 1
                start = self._turn % len(upstreams)
                return upstreams[start:] + upstreams[:start]
        return upstreams

    def _down(self, upstream: Upstream) -> bool:
        return bool(self._settings.max_fails) and upstream.fails > self._settings.max_fails

    async def _exchange(self, upstream: Upstream, request: Request, deadline: float) -> Response:
        settings = self._settings
        tcp = settings.force_tcp or (request.transport == "tcp" and not settings.prefer_udp)
        data = await upstream.exchange(request, tcp=tcp, deadline=deadline)
        response = decode_response(data, self.name)
        if response.truncated and settings.prefer_udp and not tcp:
            data = await upstream.exchange(request, tcp=True, deadline=deadline)
            response = decode_response(data, self.name)
        rcode = RCODES.get(response.rcode, str(response.rcode))
        self._requests.inc(self.name, upstream.label, rcode)
        # Only the upstream may be authoritative for the name, not this server.
        return replace(response, authoritative=False)

    async def run(self) -> None:
        """Probes upstreams that have failed until they answer again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for upstream in self._upstreams:
                    tasks.create_task(self._watch(upstream))
        finally:
            for upstream in self._upstreams:
                upstream.close()

    async def _watch(self, upstream: Upstream) -> None:
        while True:
            await upstream.suspicious.wait()
            upstream.suspicious.clear()
            while not await upstream.probe(self._settings.recursion_desired):
                self._failures.inc(self.name, upstream.label)
                await asyncio.sleep(self._settings.health_check)


def setup(setup: Setup) -> Forward:
    line = setup.lines[0]
    if len(line.args) < 2:
        line.wrong_arguments()
    zone, *targets = line.args
    try:
        (normal,) = zones_of([zone], setup.zones)[:1]
    except ValueError as error:
        line.fail(str(error))
    addresses = tuple(address for target in targets for address in _addresses(line, target))
    if len(addresses) > _MAX_UPSTREAMS:
        line.fail(f"more than {_MAX_UPSTREAMS} TOs configured: {len(addresses)}")
    settings = Settings(normal, addresses)
    for item in line.block:
        _property(settings, item)
    return Forward(setup, settings)


def _addresses(line: Line, target: str) -> list[tuple[str, int]]:
    """Parses ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, each perhaps after dns://, or a resolv.conf."""
    if target.startswith("/") or Path(target).is_file():
        return [(host, 53) for host in _resolv_conf(line, target)]
    if "://" in target:
        scheme, _, target = target.partition("://")
        if scheme != "dns":
            line.fail(f"unsupported transport {scheme}: only dns is known here")
    if address_family(target):
        return [(target, 53)]
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    if not address_family(host) or not port.isdigit():
        line.fail(f'not an IP address or file: "{target}"')
    return [(host, int(port))]


def _resolv_conf(line: Line, path: str) -> list[str]:
    try:
        text = Path(path).read_text()
    except OSError:
        line.fail(f'not an IP address or file: "{path}"')
    words = [entry.split() for entry in text.splitlines()]
    servers = [entry[1] for entry in words if len(entry) > 1 and entry[0] == "nameserver"]
    if not servers:
        line.fail(f"no nameservers found in {path}")
    return servers


def _property(settings: Settings, item: Line) -> None:
    match item.name:
        case "except":
            settings.ignored += zones_of(parsing.some(item), ())
        case "force_tcp" | "prefer_udp":
            parsing.none(item)
            setattr(settings, item.name, True)
        case "failfast_all_unhealthy_upstreams":
            parsing.none(item)
            settings.failfast = True
        case "max_fails":
            settings.max_fails = parsing.number(item, parsing.one(item))
            if settings.max_fails < 0:
                item.fail(f"max_fails can't be negative: {settings.max_fails}")
        case "expire":
            parsing.duration(item, parsing.one(item))
        case "health_check":
            settings.health_check = parsing.duration(item, parsing.some(item)[0])
            settings.recursion_desired = "no_rec" not in item.args
        case "max_concurrent":
            settings.max_concurrent = parsing.number(item, parsing.one(item))
            if settings.max_concurrent < 0:
                item.fail(f"max_concurrent can't be negative: {settings.max_concurrent}")
        case "policy":
            settings.policy = parsing.one(item)
            if settings.policy not in POLICIES:
                item.fail(f"unknown policy '{settings.policy}'")
        case _:
            parsing.unknown(item)
