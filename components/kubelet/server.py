"""The kubelet's HTTPS API on port 10250, and plain HTTP /healthz on 127.0.0.1:10248
(https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/).

A client authenticates with a certificate of the client CA. Every authenticated client may do
everything (authorization mode AlwaysAllow); kubectl's requests come from the API server, which has
authorized the user.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from kubewire.components.base.prometheus import CONTENT_TYPE
from kubewire.components.kernel import inotify
from kubewire.components.kubelet import nodepages, pods
from kubewire.components.kubelet.configuration import Settings
from kubewire.components.kubelet.logs import LogOptions, LogOptionsError, LogWriter, tail_offset
from kubewire.components.kubelet.pod.worker import PodWorker
from kubewire.components.kubelet.stats import summary
from kubewire.components.kubelet.streaming.server import spdy, websocket
from kubewire.components.kubelet.streaming.upgrade import UpgradeRequest, protocol_factory

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import PodStatus
    from kubewire.components.kubelet.kubelet import Kubelet

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOGS = Path("/var/log")
#: The paths of streams over WebSocket. SPDY requests never reach aiohttp's router.
STREAM_PATHS = (
    "/exec/{namespace}/{pod}/{container}",
    "/exec/{namespace}/{pod}/{uid}/{container}",
    "/attach/{namespace}/{pod}/{container}",
    "/attach/{namespace}/{pod}/{uid}/{container}",
    "/portForward/{namespace}/{pod}",
    "/portForward/{namespace}/{pod}/{uid}",
)


def addresses_of(host: str) -> list[str]:
    """The addresses to listen on. As in Go's net.Listen, an unspecified address means both
    families, if the kernel has IPv6."""
    both = host in ("0.0.0.0", "::") and Path("/proc/net/if_inet6").exists()
    return ["0.0.0.0", "::"] if both else [host]


class KubeletServer:
    """start() listens and stop() closes. exec, attach and port-forward are in streaming/."""

    def __init__(self, kubelet: Kubelet, settings: Settings) -> None:
        self._kubelet = kubelet
        self._settings = settings
        self.application = web.Application(middlewares=[self._authenticate])
        self._runners: list[web.AppRunner] = []
        self._listeners: list[asyncio.Server] = []
        routes: list[tuple[str, Handler]] = [
            ("/healthz", self._healthz),
            ("/healthz/{check}", self._healthz),
            ("/pods", self._pods),
            ("/runningpods/", self._pods),
            ("/metrics", self._metrics),
            ("/metrics/cadvisor", self._cadvisor),
            ("/metrics/slis", self._slis),
            ("/configz", self._configz),
            ("/logs/{path:.*}", self._log_files),
            ("/stats/summary", self._summary),
            ("/containerLogs/{namespace}/{pod}/{container}", self._logs),
        ]
        routes += [(path, self._stream) for path in STREAM_PATHS]
        for path, handler in routes:
            self.application.router.add_get(path, handler)

    async def start(self) -> None:
        """Raises OSError when a port is taken."""
        settings = self._settings
        health = web.Application()
        health.router.add_get("/healthz", self._healthz)
        if settings.healthz_port:
            await self._listen(health, settings.healthz_bind_address, settings.healthz_port, None)
        if settings.enable_server and settings.tls_cert_file and settings.tls_private_key_file:
            await self._listen(self.application, settings.address, settings.port, self._tls())
        elif settings.enable_server:
            log.warning("no serving certificate: port %s is not served", settings.port)

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        assert settings.tls_cert_file and settings.tls_private_key_file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_private_key_file)
        if settings.client_ca_file:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def _listen(
        self,
        application: web.Application,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        self._runners.append(runner)
        assert runner.server is not None, "set up above"
        factory = protocol_factory(runner.server, self._spdy)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            factory,
            addresses_of(host),
            port,
            ssl=tls,
            reuse_address=True,
        )
        self._listeners.append(listener)

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()

    def _known(self, transport: asyncio.BaseTransport | asyncio.StreamWriter | None) -> bool:
        certificate = transport.get_extra_info("peercert") if transport else None
        return bool(certificate) or self._settings.anonymous

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return await websocket(request, self._kubelet.target)

    async def _spdy(
        self,
        request: UpgradeRequest,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if not self._known(writer):
            head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(head)
            return
        await spdy(request, reader, writer, self._kubelet.target)

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._known(request.transport):
            return web.Response(status=401, text="Unauthorized")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self._kubelet.unhealthy()
        self._kubelet.metrics.checked("syncloop", not problem)
        if problem:
            text = f"[-]syncloop failed: {problem}\nhealthz check failed\n"
            return web.Response(status=500, text=text)
        return web.Response(text="ok")

    async def _pods(self, _: web.Request) -> web.Response:
        kubelet = self._kubelet
        workers = kubelet.workers.values()
        body: dict[str, Any] = {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {},
            "items": [{**item.state.pod, "status": kubelet.status_of(item)} for item in workers],
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        body = self._kubelet.metrics_text().encode()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _slis(self, _: web.Request) -> web.Response:
        body = self._kubelet.metrics.slis.text().encode()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _cadvisor(self, _: web.Request) -> web.Response:
        workers = list(self._kubelet.workers.values())
        stats = summary(self._settings.node_name, workers, self._kubelet.meter, time.time())
        text = nodepages.cadvisor(workers, stats, self._kubelet.machine)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _configz(self, _: web.Request) -> web.Response:
        body = orjson.dumps(nodepages.configz(self._settings))
        return web.Response(body=body, content_type="application/json")

    async def _log_files(self, request: web.Request) -> web.StreamResponse:
        path = nodepages.log_file(_LOGS, request.match_info["path"])
        if path is None:
            return web.Response(status=404, text="404 page not found\n")
        if not path.is_dir():
            return web.FileResponse(path)
        if not request.path.endswith("/"):
            raise web.HTTPMovedPermanently(f"{path.name}/")
        return web.Response(text=nodepages.listing(path), content_type="text/html")

    async def _summary(self, _: web.Request) -> web.Response:
        kubelet = self._kubelet
        body = summary(
            self._settings.node_name, kubelet.workers.values(), kubelet.meter, time.time()
        )
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod_name = request.match_info["pod"]
        name = request.match_info["container"]
        worker = self._kubelet.find(request.match_info["namespace"], pod_name)
        if worker is None:
            return web.Response(status=404, text=f'pod "{pod_name}" not found')
        try:
            options = LogOptions.of(request.query, time.time())
        except LogOptionsError as error:
            return web.Response(status=422, text=str(error))
        if pods.container(worker.state.pod, name) is None:
            text = f'container "{name}" not found in pod "{pod_name}"'
            return web.Response(status=404, text=text)
        record = worker.state.record
        current = (record.previous if options.previous else record.current).get(name)
        if current is None:
            status = self._kubelet.status_of(worker)
            text = no_log(pod_name, name, status, previous=options.previous)
            return web.Response(status=400, text=text)
        path = self._kubelet.directories.container_log(worker.state.pod, name, current.attempt)
        headers = {"Content-Type": "text/plain", "Transfer-Encoding": "chunked"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            await self._send(response, path, options, lambda: _running(worker, name, current.id))
        except (ConnectionResetError, FileNotFoundError):
            pass
        return response

    async def _send(
        self,
        response: web.StreamResponse,
        path: Path,
        options: LogOptions,
        running: Callable[[], bool],
    ) -> None:
        """Sends the log; with `follow`, until the container's process has ended."""
        writer = LogWriter(options)
        offset = 0 if options.tail_lines is None else tail_offset(path, options.tail_lines)
        with path.open("rb") as file:
            file.seek(offset)
            if not options.follow:
                await _pump(response, file.readlines(), writer)
                return
            with inotify.Watch(path, inotify.IN_MODIFY) as watch:
                rest = b""
                while not writer.full:
                    alive = running()
                    while chunk := file.read(65536):
                        *lines, rest = (rest + chunk).split(b"\n")
                        await _pump(response, lines, writer)
                    if not alive:
                        return
                    # The end of the process does not change the file, so check for it as well.
                    try:
                        async with asyncio.timeout(0.5):
                            await watch.changed()
                    except TimeoutError:
                        pass


async def _pump(response: web.StreamResponse, lines: list[bytes], writer: LogWriter) -> None:
    if data := writer.feed(lines):
        await response.write(data)


def _running(worker: PodWorker, name: str, container_id: str) -> bool:
    current = worker.state.record.current.get(name)
    return current is not None and current.id == container_id and current.running


#: The texts of upstream's validateContainerLogStatus; other reasons stand for themselves.
_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def no_log(pod: str, name: str, status: PodStatus, *, previous: bool) -> str:
    """Why a container has no log (yet). status: the pod's."""
    if previous:
        return f'previous terminated container "{name}" in pod "{pod}" not found'
    containers = status.get("containerStatuses") or ()
    init_containers = status.get("initContainerStatuses") or ()
    listed = (*containers, *init_containers)
    states = (item.get("state") or {} for item in listed if item["name"] == name)
    waiting = next(states, {}).get("waiting") or {}
    reason = waiting.get("reason") or "ContainerCreating"
    why = _WAITING.get(reason, reason)
    return f'container "{name}" in pod "{pod}" is waiting to start: {why}'
