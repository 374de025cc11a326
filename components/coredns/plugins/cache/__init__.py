"""cache: stores answers for their TTL, within limits (https://coredns.io/plugins/cache/)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import (
    IN,
    NXDOMAIN,
    SERVFAIL,
    SOA,
    Request,
    Response,
    with_ttl,
)
from kubewire.components.coredns.plugin import Next, Setup, Zones, longest_zone, zones_of
from kubewire.components.coredns.plugins import parsing

_CAPACITY = 9984
_MAX_TTL = 3600
_MAX_DENIAL = 1800
_MIN_TTL = 5
_SERVFAIL_TTL = 5
SUCCESS = "success"
DENIAL = "denial"
_Key = tuple[str, int, bool, bool]


@dataclass(frozen=True)
class Limits:
    """The most entries of a kind, and the range to which their TTL (seconds) is limited."""

    capacity: int
    max_ttl: int
    min_ttl: int


@dataclass
class _Entry:
    response: Response
    stored: float
    ttl: int
    hits: int = 0
    last_hit: float = 0.0


@dataclass
class Settings:
    zones: Zones
    success: Limits
    denial: Limits
    servfail_ttl: float = _SERVFAIL_TTL
    #: Prefetch an entry after this many hits (0: never), no two of them further apart than the
    #: second number says (seconds), once at most this percentage of its TTL is left.
    prefetch: tuple[int, float, int] = (0, 60.0, 10)
    serve_stale: float = 0.0
    keep_ttl: bool = False
    disabled: tuple[tuple[str, Zones], ...] = ()


def kind_of(response: Response) -> str:
    """The kind of entry for a response: success or denial; "" if it must not be cached.

    A denial needs a SOA record, which bounds the time it may be cached (RFC 2308, 5).
    """
    if response.truncated:
        return ""
    if response.rcode == SERVFAIL:
        return DENIAL
    if response.rcode == NXDOMAIN or (not response.rcode and not response.answer):
        return DENIAL if any(rr.rtype == SOA for rr in response.authority) else ""
    return SUCCESS if not response.rcode else ""


def minimal_ttl(response: Response) -> int:
    records = (*response.answer, *response.authority, *response.additional)
    return min((rr.ttl for rr in records), default=_MIN_TTL)


class Cache:
    name = "cache"

    def __init__(
        self,
        setup: Setup,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._labels = (setup.server, settings.zones[0] if settings.zones else ".", "")
        self._kept: dict[str, OrderedDict[_Key, _Entry]] = {
            SUCCESS: OrderedDict(),
            DENIAL: OrderedDict(),
        }
        registry = setup.registry
        self._hits = registry.counter(
            "coredns_cache_hits_total",
            "The count of cache hits.",
            "server",
            "type",
            "zones",
            "view",
        )
        self._misses = registry.counter(
            "coredns_cache_misses_total",
            "The count of cache misses.",
            "server",
            "zones",
            "view",
        )
        self._requests = registry.counter(
            "coredns_cache_requests_total",
            "The count of cache requests.",
            "server",
            "zones",
            "view",
        )
        self._entries = registry.gauge(
            "coredns_cache_entries",
            "The number of elements in the cache.",
            "server",
            "type",
            "zones",
            "view",
        )
        self._fetching: set[_Key] = set()

    async def serve(self, request: Request, following: Next) -> Response:
        if request.qclass != IN or not longest_zone(request.name, self._settings.zones):
            return await following(request)
        self._requests.inc(*self._labels)
        key = (request.name, request.qtype, request.dnssec_ok, request.checking_disabled)
        for kind, kept in self._kept.items():
            entry = kept.get(key)
            if entry is not None:
                return await self._from(kind, key, entry, request, following)
        self._misses.inc(*self._labels)
        return self._stored(key, await following(request))

    async def _from(
        self,
        kind: str,
        key: _Key,
        entry: _Entry,
        request: Request,
        following: Next,
    ) -> Response:
        now = self._clock()
        left = entry.stored + entry.ttl - now
        if left <= 0:
            if left + self._settings.serve_stale <= 0:
                del self._kept[kind][key]
                self._misses.inc(*self._labels)
                return self._stored(key, await following(request))
            self._refresh(key, request, following)
        elif self._worth_fetching(entry, left, now):
            self._refresh(key, request, following)
        self._hits.inc(self._labels[0], kind, *self._labels[1:])
        # CoreDNS sends a stale answer with TTL 0; RFC 8767, section 4, recommends 30 seconds.
        if self._settings.keep_ttl:
            return entry.response
        return _aged(entry.response, max(0, int(left)))

    def _worth_fetching(self, entry: _Entry, left: float, now: float) -> bool:
        amount, window, percentage = self._settings.prefetch
        if now - entry.last_hit > window:
            entry.hits = 0
        entry.hits = entry.hits + 1
        entry.last_hit = now
        return bool(amount) and entry.hits >= amount and left <= entry.ttl * percentage / 100

    def _refresh(self, key: _Key, request: Request, following: Next) -> None:
        if key in self._fetching:
            return
        self._fetching.add(key)

        async def fetch() -> None:
            try:
                self._stored(key, await following(request))
            finally:
                self._fetching.discard(key)

        asyncio.get_running_loop().create_task(fetch())

    def _stored(self, key: _Key, response: Response) -> Response:
        kind = kind_of(response)
        if not kind or self._disabled(kind, key[0]):
            return response
        limits = self._settings.success if kind == SUCCESS else self._settings.denial
        ttl = min(max(minimal_ttl(response), limits.min_ttl), limits.max_ttl)
        if response.rcode == SERVFAIL:
            ttl = int(self._settings.servfail_ttl)
        if ttl <= 0 or limits.capacity <= 0:
            return response
        kept = self._kept[kind]
        for other in self._kept.values():
            other.pop(key, None)
        kept[key] = _Entry(response, self._clock(), ttl)
        if len(kept) > limits.capacity:
            kept.popitem(last=False)
        self._entries.set(len(kept), self._labels[0], kind, *self._labels[1:])
        return response if self._settings.keep_ttl else _aged(response, ttl)

    def _disabled(self, kind: str, name: str) -> bool:
        disabled = self._settings.disabled
        return any(off == kind and longest_zone(name, zones) for off, zones in disabled)


def _aged(response: Response, ttl: int) -> Response:
    return replace(
        response,
        answer=tuple(with_ttl(rr, ttl) for rr in response.answer),
        authority=tuple(with_ttl(rr, ttl) for rr in response.authority),
        additional=tuple(with_ttl(rr, ttl) for rr in response.additional),
    )


def setup(setup: Setup) -> Cache:
    (line,) = setup.lines[:1]
    args = list(line.args)
    ttl = 0
    if args and args[0].isdigit():
        ttl = int(args.pop(0))
        if ttl <= 0:
            line.fail(f"cache TTL can not be zero or negative: {ttl}")
    settings = Settings(
        zones=zones_of(args, setup.zones),
        success=Limits(_CAPACITY, ttl or _MAX_TTL, _MIN_TTL),
        denial=Limits(_CAPACITY, ttl or _MAX_DENIAL, _MIN_TTL),
    )
    for item in line.block:
        _property(settings, item)
    return Cache(setup, settings)


def _property(settings: Settings, item: Line) -> None:
    match item.name:
        case "success":
            settings.success = _limits(item, settings.success)
        case "denial":
            settings.denial = _limits(item, settings.denial)
        case "prefetch":
            settings.prefetch = _prefetch(item)
        case "serve_stale":
            settings.serve_stale = parsing.duration(item, item.args[0]) if item.args else 3600.0
        case "servfail":
            settings.servfail_ttl = parsing.duration(item, parsing.one(item))
            if settings.servfail_ttl > 300:
                item.fail("caching SERVFAIL responses over 5 minutes is not permitted")
        case "disable":
            kind, *zones = parsing.some(item)
            if kind not in (SUCCESS, DENIAL):
                item.fail(f'cache type for disable must be "{SUCCESS}" or "{DENIAL}"')
            settings.disabled += ((kind, zones_of(zones, settings.zones)),)
        case "keepttl":
            parsing.none(item)
            settings.keep_ttl = True
        case _:
            parsing.unknown(item)


def _limits(item: Line, defaults: Limits) -> Limits:
    """Reads `CAPACITY [TTL [MINTTL]]`; what is left out keeps its default."""
    numbers = [parsing.number(item, text) for text in parsing.some(item)]
    if len(numbers) > 3:
        item.wrong_arguments()
    if len(numbers) > 1 and numbers[1] <= 0:
        item.fail(f"cache TTL can not be zero or negative: {numbers[1]}")
    missing = (defaults.capacity, defaults.max_ttl, defaults.min_ttl)[len(numbers) :]
    return Limits(*[*numbers, *missing])


def _prefetch(item: Line) -> tuple[int, float, int]:
    args = parsing.some(item)
    amount = parsing.number(item, args[0])
    if amount < 0:
        item.fail(f"prefetch amount should be positive: {amount}")
    window = parsing.duration(item, args[1]) if len(args) > 1 else 60.0
    percentage = parsing.number(item, args[2].removesuffix("%")) if len(args) > 2 else 10
    if not 10 <= percentage <= 90:
        item.fail(f"percentage should fall in range [10, 90]: {percentage}")
    return amount, window, percentage
