"""/healthz, /livez, /metrics and /proxyMode (upstream's pkg/proxy/healthcheck and cmd/kube-proxy)."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from components.kube_proxy.metrics import Metrics
from components.machinery.prometheus import CONTENT_TYPE

log = logging.getLogger(__name__)
_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"


def node_eligible(node: dict[str, Any] | None) -> bool:
    """Whether load balancers may keep sending here: not when the node is on its way out (KEP-3836)."""
    if node is None:
        return True
    taints = (node.get("spec") or {}).get("taints") or ()
    return "deletionTimestamp" not in node["metadata"] and all(t.get("key") != _TO_BE_DELETED for t in taints)


@dataclass
class Health:
    """Healthy while no queued change waits longer than timeout (twice the sync period)."""

    timeout: float
    node: dict[str, Any] | None = None
    _queued: dict[str, float] = field(default_factory=dict)
    _updated: dict[str, float] = field(default_factory=dict)

    def queued(self, family: str) -> None:
        """A change waits; the oldest one counts."""
        self._queued.setdefault(family, time.time())

    def updated(self, family: str) -> None:
        self._queued.pop(family, None)
        self._updated[family] = time.time()

    def healthy(self, now: float) -> bool:
        return bool(self._updated) and all(now - since < self.timeout for since in self._queued.values())

    def body(self, now: float) -> dict[str, Any]:
        last = now if not self._queued and self._updated else min(self._updated.values(), default=0.0)
        return {"lastUpdated": _go_time(last), "currentTime": _go_time(now)}


def _go_time(stamp: float) -> str:
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC"


def healthz_app(health: Health, metrics: Metrics) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        now, eligible = time.time(), node_eligible(health.node)
        status = 200 if eligible and health.healthy(now) else 503
        metrics.healthz.inc(str(status))
        return _json(health.body(now) | {"nodeEligible": eligible}, status)

    async def livez(_: web.Request) -> web.Response:
        now = time.time()
        status = 200 if health.healthy(now) else 503
        metrics.livez.inc(str(status))
        return _json(health.body(now), status)

    return _app({"/healthz": healthz, "/livez": livez})


def metrics_app(metrics: Metrics, mode: str) -> web.Application:
    async def text(_: web.Request) -> web.Response:
        return web.Response(body=metrics.registry.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def proxy_mode(_: web.Request) -> web.Response:
        return web.Response(text=mode)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    return _app({"/metrics": text, "/proxyMode": proxy_mode, "/healthz": healthz})


def _json(body: dict[str, Any], status: int) -> web.Response:
    return web.json_response(body, status=status, headers={"X-Content-Type-Options": "nosniff"})


def _app(routes: dict[str, Any]) -> web.Application:
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])
    return app


async def serve(app: web.Application, address: str, *, hard_fail: bool) -> web.AppRunner | None:
    """address is HOST:PORT; "" serves nothing. A port in use is an error only with bindAddressHardFail."""
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
