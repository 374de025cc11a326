"""The API server's metrics, with upstream's names (apiserver/pkg/endpoints/metrics)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kubewire.components.apiserver.http.requestinfo import RequestInfo
from kubewire.components.base.prometheus import Registry

_BUCKETS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5,
    2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_REQUEST = ("group", "version", "resource", "subresource", "scope", "component")
_VERBS = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
}

_METHODS = frozenset({"post", "put", "head", "options"})


def _where(info: RequestInfo) -> tuple[str, ...]:
    return (
        info.group,
        info.version,
        info.plural,
        info.subresource,
        info.scope if info.is_resource else "",
        "apiserver",
    )


def _verb(info: RequestInfo) -> str:
    if info.subresource in ("exec", "attach", "portforward", "proxy", "log"):
        return "CONNECT"
    # A client may send any word as method; a label for each would use up memory (cleanVerb).
    return _VERBS.get(info.verb) or (info.verb.upper() if info.verb in _METHODS else "OTHER")


class Metrics:
    """The metrics of one server; object_counts returns (resource, number) pairs for each
    reading.
    """

    def __init__(self, object_counts: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._object_counts = object_counts
        self._registry = registry = Registry()
        self.requests = registry.counter(
            "apiserver_request_total",
            "Counter of apiserver requests broken out for each verb, dry run value, group, "
            "version, "
            "resource, scope, component, and HTTP response code.",
            "verb",
            "dry_run",
            *_REQUEST,
            "code",
        )
        self.durations = registry.histogram(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, dry run value, group, "
            "version, "
            "resource, subresource, scope and component.",
            "verb",
            "dry_run",
            *_REQUEST,
            buckets=_BUCKETS,
        )
        self.longrunning = registry.gauge(
            "apiserver_longrunning_requests",
            "Gauge of all active long-running apiserver requests broken out by verb, group, "
            "version, "
            "resource, scope and component. Not all requests are tracked this way.",
            "verb",
            *_REQUEST,
        )
        self.inflight = registry.gauge(
            "apiserver_current_inflight_requests",
            "Number of requests being answered per request kind.",
            "request_kind",
        )
        self.objects = registry.gauge(
            "apiserver_storage_objects",
            "Number of stored objects at the time of last check split by kind.",
            "resource",
        )

    def text(self) -> str:
        for resource, number in self._object_counts():
            self.objects.set(number, resource)
        return self._registry.text()

    def begin(self, info: RequestInfo, long_running: bool) -> None:
        if long_running:
            self.longrunning.inc(_verb(info), *_where(info))
        else:
            self.inflight.inc(_kind(info))

    def end(
        self,
        info: RequestInfo,
        long_running: bool,
        code: int,
        seconds: float,
        dry_run: bool,
    ) -> None:
        verb = _verb(info)
        dry = "All" if dry_run else ""
        self.requests.inc(verb, dry, *_where(info), str(code))
        if long_running:
            self.longrunning.inc(verb, *_where(info), by=-1)
        else:
            self.inflight.inc(_kind(info), by=-1)
            self.durations.observe(seconds, verb, dry, *_where(info))


def _kind(info: RequestInfo) -> str:
    return "readOnly" if info.verb in ("get", "list", "watch") else "mutating"
