"""/healthz, /livez, /metrics and /proxyMode (upstream's pkg/proxy/healthcheck and
cmd/kube-proxy)."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kubewire.components.base.prometheus import CONTENT_TYPE
from kubewire.components.kube_proxy.metrics import Metrics

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Node

log = logging.getLogger(__name__)
_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"


def node_eligible(node: Node | None) -> bool:
    """Whether load balancers may keep sending here: not when the node is on its way out
    (KEP-3836)."""
    if node is None:
        return True
    taints = (node.get("spec") or {}).get("taints") or ()
    return "deletionTimestamp" not in node["metadata"] and all(
        t.get("key") != _TO_BE_DELETED for t in taints
    )


@dataclass
class Health:
    """Healthy while no queued change waits longer than timeout (twice the sync period)."""

    timeout: float
    node: Node | None = None
    started: int = field(default_factory=time.time_ns)
    _queued: dict[str, int] = field(default_factory=dict)
    _updated: dict[str, int] = field(default_factory=dict)

    def queued(self, family: str) -> None:
        """A change waits; the oldest one counts."""
        self._queued.setdefault(family, time.time_ns())

    def updated(self, family: str) -> None:
        self._queued.pop(family, None)
        self._updated[family] = time.time_ns()

    def healthy(self, now: int) -> bool:
        """Also before a family's first sync: starting up is no illness."""
        return not self._late(now)

    def last_updated(self, now: int) -> int:
        """A healthy proxy is up to date, so the time is now; else the last time that the family
        which is late was."""
        late = self._late(now)
        return self._updated[late[0]] if late else now

    def _late(self, now: int) -> list[str]:
        return [
            family
            for family, since in self._queued.items()
            if family in self._updated and now - since >= self.timeout * _SECOND
        ]


#: Times are nanoseconds, as Go's are.
_SECOND = 1_000_000_000


def go_time(stamp: int, started: int) -> str:
    """As Go prints a time.Time that it read from its clock: nanoseconds without zeros at the end,
    the time zone of the process, and the seconds since it started."""
    seconds, rest = divmod(stamp, _SECOND)
    local = datetime.fromtimestamp(seconds, UTC).astimezone()
    fraction = f".{rest:09}".rstrip("0").rstrip(".")
    since = abs(stamp - started)
    sign = "-" if stamp < started else "+"
    return (
        f"{local:%Y-%m-%d %H:%M:%S}{fraction} {local:%z %Z} "
        f"m={sign}{since // _SECOND}.{since % _SECOND:09}"
    )


def healthz_app(health: Health, metrics: Metrics) -> web.Application:
    def times(last: int, now: int) -> str:
        shown = go_time(last, health.started), go_time(now, health.started)
        return f'"lastUpdated": "{shown[0]}","currentTime": "{shown[1]}"'

    async def healthz(_: web.Request) -> web.Response:
        now, eligible = time.time_ns(), node_eligible(health.node)
        good = eligible and health.healthy(now)
        metrics.healthz.inc("200" if good else "503")
        last = now if good else health.last_updated(now)
        return _answer(f'{{{times(last, now)}, "nodeEligible": {str(eligible).lower()}}}', good)

    async def livez(_: web.Request) -> web.Response:
        now = time.time_ns()
        good = health.healthy(now)
        metrics.livez.inc("200" if good else "503")
        return _answer(f"{{{times(health.last_updated(now), now)}}}", good)

    return _app({"/healthz": healthz, "/livez": livez})


def metrics_app(metrics: Metrics, mode: str) -> web.Application:
    async def text(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def proxy_mode(_: web.Request) -> web.Response:
        return web.Response(text=mode, headers={"X-Content-Type-Options": "nosniff"})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok", headers={"X-Content-Type-Options": "nosniff"})

    return _app({"/metrics": text, "/proxyMode": proxy_mode, "/healthz": healthz})


def _answer(body: str, good: bool) -> web.Response:
    headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=body.encode(), status=200 if good else 503, headers=headers)


def _app(routes: dict[str, Any]) -> web.Application:
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])
    return app


async def serve(app: web.Application, address: str, *, hard_fail: bool) -> web.AppRunner | None:
    """address is HOST:PORT; "" serves nothing. A port in use is an error only with
    bindAddressHardFail."""
    if not address:
        return None
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
    except OSError as error:
        await runner.cleanup()
        if hard_fail:
            raise
        log.error("starting server on %s failed: %s", address, error)
        return None
    return runner
