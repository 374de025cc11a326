"""Connecting subresources: exec, attach, port-forward and logs by way of the kubelet, and the HTTP proxies.

An upgrade (SPDY/3.1, WebSocket) is replayed to the kubelet; after its 101 the bytes pass both ways untouched
(https://kubernetes.io/docs/concepts/architecture/control-plane-node-communication/#apiserver-to-kubelet)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict
from yarl import URL

from components.apiserver import status
from components.apiserver.registry import Registry
from components.apiserver.requestinfo import RequestInfo, flag
from components.apiserver.store import Key
from components.machinery.resources import KubeObject

_KUBELET_PORT = 10250
_DIAL_SECONDS = 10.0
_BUFFER = 256 * 1024
#: How much of a kubelet's error is passed on, in bytes.
_ERROR_TEXT = 10_000
_PROTOCOL = "Sec-WebSocket-Protocol"
_STREAM_CLOSE = "v5.channel.k8s.io"
_ERROR_CHANNEL = b"\x03"
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
_ADDRESS_ORDER = ("InternalIP", "ExternalIP", "Hostname")


class Connection(RequestHandler):
    """An aiohttp connection that can stop speaking HTTP. aiohttp upgrades only to WebSocket; a client of either
    upgrade sends nothing before the 101, so taking the bytes over from there on is enough."""

    __slots__ = ("tunnel", "user")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tunnel: asyncio.StreamReader | None = None
        self.user: Any = None

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.feed_data(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.tunnel is not None:
            self.tunnel.feed_eof()
        super().connection_lost(exc)


class Hijacked(web.StreamResponse):
    """Stands for a connection that was taken over; nothing is left to send."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        self.force_close()
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


@dataclass(frozen=True)
class Target:
    """Where a request goes on to. path starts with a slash and has no query; what names it in errors."""

    scheme: str
    host: str
    port: int
    path: str
    query: Sequence[tuple[str, str]] = ()

    @property
    def path_and_query(self) -> str:
        return f"{self.path}?{urlencode(list(self.query))}" if self.query else self.path

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass
class Connector:
    """Dials kubelets with the client certificate given by the flags, and pods without one."""

    registry: Registry
    certificate: str
    key: str
    authority: str
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _context: ssl.SSLContext | None = field(default=None, init=False)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def serve(
        self, request: web.BaseRequest, info: RequestInfo, query: list[tuple[str, str]]
    ) -> web.StreamResponse:
        """exec, attach, portforward, log and proxy. Raises StatusError."""
        target = self._target(info, query)
        if target is None:
            return web.Response(body=b"", headers={"Content-Type": "text/plain"})
        if "upgrade" in request.headers.get("Connection", "").lower() and request.headers.get("Upgrade"):
            return await self._upgrade(request, target)
        if info.subresource in ("exec", "attach", "portforward"):
            raise status.bad_request("Upgrade request required")
        return await self._forward(request, target, info)

    # --- where to

    def _target(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target | None:
        match info.plural, info.subresource:
            case "pods", "proxy":
                return self._pod_proxy(info, query)
            case "services", "proxy":
                return self._service_proxy(info, query)
            case "nodes", "proxy":
                name, _, port = info.name.partition(":")
                return self._kubelet(name, info.rest or "/", query, int(port) if port.isdigit() else None)
            case "pods", _:
                return self._kubelet_stream(info, query)
        raise status.no_such_path()

    def _kubelet(self, node_name: str, path: str, query: Sequence[tuple[str, str]], port: int | None = None) -> Target:
        node = self.registry.store.get(Key("nodes", "", node_name))
        if node is None:
            raise status.not_found("", "nodes", node_name)
        state = node.obj.get("status") or {}
        endpoint = ((state.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        addresses = {one["type"]: one["address"] for one in reversed(state.get("addresses") or [])}
        host = next((addresses[kind] for kind in _ADDRESS_ORDER if kind in addresses), None)
        if host is None:
            raise status.internal_error(f"no preferred addresses found; known addresses: {list(addresses)}")
        return Target("https", host, port or endpoint or _KUBELET_PORT, path, query)

    def _pod(self, namespace: str, name: str) -> KubeObject:
        pod = self.registry.store.get(Key("pods", namespace, name))
        if pod is None:
            raise status.not_found("", "pods", name)
        return pod.obj

    def _kubelet_stream(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target | None:
        pod = self._pod(info.namespace, info.name)
        node = pod["spec"].get("nodeName")
        if info.subresource == "portforward":
            ports = [("port", port) for _, value in _named(query, "ports") for port in value.split(",")]
            self._assigned(info.name, node)
            return self._kubelet(node, f"/portForward/{info.namespace}/{info.name}", ports)
        container = container_of(pod, dict(query).get("container", ""))
        place = f"{info.namespace}/{info.name}/{container}"
        if info.subresource == "log":
            # A pod that is nowhere has said nothing yet.
            kept = [(key, value) for key, value in query if key not in ("container", "insecureSkipTLSVerifyBackend")]
            return self._kubelet(node, f"/containerLogs/{place}", kept) if node else None
        phase = (pod.get("status") or {}).get("phase")
        if info.subresource == "exec" and phase in ("Succeeded", "Failed"):
            raise status.bad_request(f"cannot exec into a container in a completed pod; current phase is {phase}")
        self._assigned(info.name, node)
        return self._kubelet(node, f"/{info.subresource}/{place}", stream_parameters(query))

    def _assigned(self, name: str, node: str | None) -> None:
        if not node:
            raise status.bad_request(f"pod {name} does not have a host assigned")

    def _pod_proxy(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target:
        scheme, name, port = split_scheme_name_port(info.name)
        pod = self._pod(info.namespace, name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise status.bad_request("address not allowed")
        ports = [port for one in pod["spec"]["containers"] for port in one.get("ports") or []]
        number = ports[0]["containerPort"] if ports and not port else 80
        return Target(scheme or "http", address, _port(port, number), info.rest or "/", query)

    def _service_proxy(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target:
        scheme, name, port = split_scheme_name_port(info.name)
        service = self.registry.store.get(Key("services", info.namespace, name))
        if service is None:
            raise status.not_found("", "services", name)
        wanted = _service_port(service.obj, port)
        address, number = self._ready_endpoint(info.namespace, name, wanted)
        return Target(scheme or "http", address, number, info.rest or "/", query)

    def _ready_endpoint(self, namespace: str, service: str, port: KubeObject) -> tuple[str, int]:
        for stored in self.registry.store.items("endpointslices.discovery.k8s.io"):
            labels = stored.obj["metadata"].get("labels") or {}
            if stored.key.namespace != namespace or labels.get("kubernetes.io/service-name") != service:
                continue
            numbers = [
                one["port"] for one in stored.obj.get("ports") or [] if one.get("name", "") == port.get("name", "")
            ]
            for endpoint in stored.obj.get("endpoints") or []:
                if numbers and (endpoint.get("conditions") or {}).get("ready", True):
                    return endpoint["addresses"][0], numbers[0]
        raise status.service_unavailable(f'no endpoints available for service "{service}"')

    # --- passing on

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            context = ssl.create_default_context(cafile=self.authority or None)
            if not self.authority:
                # As upstream without --kubelet-certificate-authority: the kubelet is not verified.
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
            self._context = context
        return self._context

    async def _forward(self, request: web.BaseRequest, target: Target, info: RequestInfo) -> web.StreamResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_DIAL_SECONDS),
            )  # fmt: skip
        body = await request.read() if request.body_exists else None
        url = f"{target.scheme}://{target.authority}{target.path_and_query}"
        try:
            async with self._session.request(
                request.method,
                URL(url, encoded=True),
                data=body,
                headers=_end_to_end(request.headers),
                ssl=self._tls() if target.scheme == "https" else True,
                allow_redirects=False,
            ) as answer:
                if info.subresource == "log":
                    await _check_log_answer(answer, info.name)
                return await _relay(request, answer)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise _dial_error(request, target, error) from error

    async def _upgrade(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        context = self._tls() if target.scheme == "https" else None
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, limit=_BUFFER)
        except (OSError, TimeoutError) as error:
            raise _dial_error(request, target, error) from error
        try:
            writer.write(_request_head(request, target))
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(b" ", 2)[1] != b"101":
                refused = await _refused(head, reader)
                return await _say_on_error_channel(request, refused) if _stream_close(request) else refused
            await _tunnel(request, head, reader, writer)
            return Hijacked()
        except (asyncio.IncompleteReadError, OSError) as error:
            raise status.internal_error(f"error dialing backend: {error}") from error
        finally:
            writer.close()


def _dial_error(request: web.BaseRequest, target: Target, error: BaseException) -> status.StatusError:
    reason = str(error) or type(error).__name__
    if target.scheme == "https" and target.port == _KUBELET_PORT and request.path.endswith("/log"):
        url = f"https://{target.authority}{target.path_and_query}"
        return status.internal_error(f'Get "{url}": dial tcp {target.authority}: {reason}')
    return status.internal_error(f"error dialing backend: dial tcp {target.authority}: {reason}")


async def _check_log_answer(answer: aiohttp.ClientResponse, pod: str) -> None:
    """The kubelet's plain text as a Status (registry/generic/rest's GenericHttpResponseChecker). Raises StatusError."""
    if 200 <= answer.status <= 206:
        return
    text = (await answer.content.read(_ERROR_TEXT)).decode(errors="replace")
    if answer.status == 400:
        raise status.bad_request(text)
    if answer.status == 500:
        raise status.internal_error(text)
    raise status.backend_response(answer.status, text, f"pods/log {pod}")


def _stream_close(request: web.BaseRequest) -> bool:
    """A WebSocket client of remotecommand v5, which upstream's API server answers itself (StreamTranslator)."""
    offered = [one.strip() for line in request.headers.getall(_PROTOCOL, ()) for one in line.split(",")]
    return request.headers.get("Upgrade", "").lower() == "websocket" and _STREAM_CLOSE in offered


async def _say_on_error_channel(request: web.BaseRequest, refused: web.Response) -> web.StreamResponse:
    """By the time the kubelet is asked upstream has accepted the WebSocket, so a refusal comes as a Status on it."""
    socket = web.WebSocketResponse(protocols=(_STREAM_CLOSE,))
    await socket.prepare(request)
    body = refused.body if isinstance(refused.body, bytes) else b""
    text = body.decode(errors="replace").strip()
    said = status.internal_error(f"unable to upgrade connection: {text}").body
    await socket.send_bytes(_ERROR_CHANNEL + json.dumps(said).encode())
    await socket.close()
    return socket


async def _relay(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = CIMultiDict((key, value) for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    if "Content-Length" not in headers:
        response.enable_chunked_encoding()
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    dropped = _HOP_BY_HOP | {"authorization", "host", "content-length"}
    return CIMultiDict((key, value) for key, value in headers.items() if key.lower() not in dropped)


def _request_head(request: web.BaseRequest, target: Target) -> bytes:
    lines = [f"{request.method} {target.path_and_query} HTTP/1.1", f"Host: {target.authority}"]
    lines += [
        f"{key}: {value}" for key, value in request.headers.items() if key.lower() not in ("host", "authorization")
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _refused(head: bytes, reader: asyncio.StreamReader) -> web.Response:
    """The kubelet's answer that is no 101, with its body."""
    status_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        key, _, value = line.partition(":")
        headers.add(key, value.strip())
    length = headers.get("Content-Length")
    if length is not None:
        body = await reader.readexactly(int(length))
    else:
        async with asyncio.timeout(_DIAL_SECONDS):
            body = await reader.read(_BUFFER) if headers.get("Transfer-Encoding") is None else await _dechunked(reader)
    kept = {key: value for key, value in headers.items() if key.lower() not in _HOP_BY_HOP | {"content-length"}}
    return web.Response(status=int(status_line.split(" ", 2)[1]), body=body, headers=kept)


async def _dechunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return body


async def _tunnel(
    request: web.BaseRequest, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    connection, transport = request.protocol, request.transport
    if not isinstance(connection, Connection) or transport is None:
        raise status.internal_error("the connection cannot be taken over")
    inward = asyncio.StreamReader(limit=_BUFFER)
    inward.set_transport(transport)
    connection.tunnel = inward
    transport.write(head)

    async def to_client() -> None:
        while data := await reader.read(_BUFFER):
            transport.write(data)
            await connection._drain_helper()

    async def to_kubelet() -> None:
        while data := await inward.read(_BUFFER):
            writer.write(data)
            await writer.drain()

    pumps = [asyncio.create_task(to_client()), asyncio.create_task(to_kubelet())]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        transport.close()


# --- parameters


def stream_parameters(query: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """PodExecOptions as the kubelet takes them (core/pod/strategy.go's streamParams)."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    found = [(names[key], "1") for key, value in query if key in names and flag(value)]
    return found + [(key, value) for key, value in query if key == "command"]


def container_of(pod: KubeObject, asked: str) -> str:
    """The container meant; without a name the only one, or the one annotated as default. Raises 400."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = {
        kind: [one["name"] for one in spec.get(kind) or []]
        for kind in ("containers", "initContainers", "ephemeralContainers")
    }
    if asked:
        if not any(asked in found for found in names.values()):
            raise status.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in names["containers"]:
        return str(default)
    if len(names["containers"]) == 1:
        return str(names["containers"][0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names['containers'])}]"
    if names["initContainers"]:
        text += f" or one of the init containers: [{' '.join(names['initContainers'])}]"
    raise status.bad_request(text)


def split_scheme_name_port(text: str) -> tuple[str, str, str]:
    """[scheme:]name[:port] (apimachinery's SplitSchemeNamePort)."""
    parts = text.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return parts[0], parts[1], parts[2]
    raise status.bad_request(f'invalid proxy request "{text}"')


def _named(query: Iterable[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in query if key == name]


def _port(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdigit():
        raise status.bad_request(f'invalid port "{text}"')
    return int(text)


def _service_port(service: KubeObject, wanted: str) -> KubeObject:
    ports = service["spec"].get("ports") or []
    for port in ports:
        if not wanted or wanted in (port.get("name"), str(port["port"])):
            return dict(port)
    raise status.service_unavailable(f'no service port "{wanted}" found for service "{service["metadata"]["name"]}"')


def parse_query(raw: str) -> list[tuple[str, str]]:
    return parse_qsl(raw, keep_blank_values=True)
