"""healthCheckNodePort: one HTTP server per Service with externalTrafficPolicy Local, which tells
load balancers whether this node has endpoints of it (upstream's
pkg/proxy/healthcheck/service_health.go)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from kubewire.components.kube_proxy.state.model import Endpoints, Services

log = logging.getLogger(__name__)
#: (namespace, name)
ServiceKey = tuple[str, str]


def ports_of(families: Iterable[Services]) -> dict[ServiceKey, int]:
    """Service -> its health check port."""
    return {
        (name.namespace, name.name): service.health_check_node_port
        for services in families
        for name, service in services.items()
        if service.health_check_node_port
    }


def local_ready(
    families: Iterable[Endpoints], wanted: Iterable[ServiceKey], node: str
) -> dict[ServiceKey, int]:
    """Service -> number of addresses with a ready endpoint on this node. A dual-stack pod counts
    once: the family that has more decides."""
    keys, counts = set(wanted), dict[ServiceKey, int]()
    for endpoints in families:
        addresses: dict[ServiceKey, set[str]] = {}
        for name, found in endpoints.items():
            if (key := (name.namespace, name.name)) in keys:
                here = {ep.ip for ep in found if ep.ready and node and ep.node_name == node}
                addresses.setdefault(key, set()).update(here)
        for key, ips in addresses.items():
            counts[key] = max(counts.get(key, 0), len(ips))
    return counts


def answer(service: ServiceKey, count: int, healthy: bool) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, byte for byte as upstream writes them."""
    namespace, name = service
    body = (
        "{\n"
        '\t"service": {\n'
        f'\t\t"namespace": "{namespace}",\n'
        f'\t\t"name": "{name}"\n'
        "\t},\n"
        f'\t"localEndpoints": {count},\n'
        f'\t"serviceProxyHealthy": {str(healthy).lower()}\n'
        "}"
    )
    headers = {
        "Content-Type": "application/json",
        "X-Content-Type-Options": "nosniff",
        "X-Load-Balancing-Endpoint-Weight": str(count),
    }
    return (200 if count and healthy else 503), headers, body


@dataclass
class _Listener:
    port: int
    runner: web.AppRunner
    count: int = 0


@dataclass
class ServiceHealth:
    """The servers. healthy: the proxy's own state; addresses: where to listen, asked for each new
    server, "" for everywhere; failed: told when a port cannot be had (upstream makes it an
    event)."""

    node: str
    healthy: Callable[[], bool]
    addresses: Callable[[], Sequence[str]]
    failed: Callable[[ServiceKey, str], None]
    _open: dict[ServiceKey, _Listener] = field(default_factory=dict)

    async def sync(self, ports: Mapping[ServiceKey, int], counts: Mapping[ServiceKey, int]) -> None:
        """Closes what is not wanted any more or moved, opens what is new, and updates the counts. A
        port that cannot be opened is tried again at the next sync."""
        for key in [key for key, listener in self._open.items() if ports.get(key) != listener.port]:
            log.info("closing health check of %s/%s", *key)
            await self._open.pop(key).runner.cleanup()
        for key, port in ports.items():
            if key not in self._open:
                await self._start(key, port)
        for key, listener in self._open.items():
            listener.count = counts.get(key, 0)

    async def close(self) -> None:
        await self.sync({}, {})

    async def _start(self, key: ServiceKey, port: int) -> None:
        async def respond(_: web.Request) -> web.Response:
            return self._respond(key)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", respond)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        try:
            for address in self.addresses():
                await web.TCPSite(runner, address or None, port).start()
        except OSError as error:
            await runner.cleanup()
            why = f'node {self.node} failed to start healthcheck "{"/".join(key)}" on port {port}: {error}'
            log.error("%s", why)
            self.failed(key, why)
            return
        log.info("opened health check of %s/%s on port %d", *key, port)
        self._open[key] = _Listener(port, runner)

    def _respond(self, key: ServiceKey) -> web.Response:
        listener = self._open.get(key)
        status, headers, body = answer(key, listener.count if listener else 0, self.healthy())
        return web.Response(status=status, headers=headers, body=body.encode())
