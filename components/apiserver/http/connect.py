"""The connecting subresources: exec, attach, port-forward, logs and the HTTP proxies.

exec, attach, port-forward and logs lead to the kubelet. This module finds the backend and forwards
plain requests; upgrade.py carries an upgraded connection.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.connectnames import (
    container_of,
    named,
    port_number,
    service_port_name,
    split_scheme_name_port,
    stream_parameters,
)
from kubewire.components.apiserver.http.logsocket import is_websocket, send_as_messages
from kubewire.components.apiserver.http.proxying import (
    Place,
    answer_headers,
    forwarded_uri,
    has_links,
    rewritten_body,
)
from kubewire.components.apiserver.http.relaying import relay
from kubewire.components.apiserver.http.requestinfo import RequestInfo
from kubewire.components.apiserver.http.upgrade import (
    BUFFER,
    DIAL_SECONDS,
    HOP_BY_HOP,
    BackendError,
    Hijacked,
    Target,
    read_answer,
    request_head,
    say_on_error_channel,
    tunnel,
    wants_stream_close,
)
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.resources import KubeObject

_KUBELET_PORT = 10250
#: The most bytes of a kubelet's error text that are passed on.
_ERROR_TEXT = 10_000
_ADDRESS_ORDER = ("InternalIP", "ExternalIP", "Hostname")


@dataclass
class Connector:
    """Connects to kubelets with the client certificate of the flags, and to pods without one."""

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
        """Serves exec, attach, portforward, log and proxy; raises StatusError."""
        target = self._target(info, query)
        if target is None:
            return web.Response(status=204)
        connection = request.headers.get("Connection", "").lower()
        upgrade = "upgrade" in connection and request.headers.get("Upgrade")
        if upgrade and info.subresource != "log":
            return await self._upgrade(request, target)
        if info.subresource == "proxy" and not info.rest and request.method in ("GET", "HEAD"):
            # Links of a page are relative to its path, so the path must end with a slash.
            asked = f"?{request.rel_url.raw_query_string}" if request.rel_url.query_string else ""
            return web.Response(status=301, headers={"Location": f"{info.path}/{asked}"})
        if info.subresource in ("exec", "attach", "portforward"):
            raise status.bad_request("Upgrade request required")
        return await self._forward(request, target, info)

    def _target(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target | None:
        match info.plural, info.subresource:
            case "pods", "proxy":
                return self._pod_proxy(info, query)
            case "services", "proxy":
                return self._service_proxy(info, query)
            case "nodes", "proxy":
                return self._node_proxy(info, query)
            case "pods", _:
                return self._kubelet_stream(info, query)
        raise status.no_such_path()

    def _kubelet(
        self,
        node_name: str,
        path: str,
        query: Sequence[tuple[str, str]],
    ) -> Target:
        node = self.registry.store.get(Key("nodes", "", node_name))
        if node is None:
            raise status.not_found("", "nodes", node_name)
        state = node.obj.get("status") or {}
        endpoint = ((state.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        listed = reversed(state.get("addresses") or [])
        addresses = {item.get("type"): item.get("address") for item in listed}
        host = next((addresses[kind] for kind in _ADDRESS_ORDER if kind in addresses), None)
        if host is None:
            raise status.internal_error(
                f"no preferred addresses found; known addresses: {list(addresses)}",
            )
        number = endpoint or _KUBELET_PORT
        if not 0 < number < 65536:
            raise status.internal_error(
                f"error dialing backend: dial tcp: address {number}: invalid port",
            )
        return Target("https", host, number, path, query, kubelet=True)

    def _node_proxy(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target:
        """The kubelet, or with another port another server of the node."""
        scheme, name, port = split_scheme_name_port(info.name, "node")
        number = port_number(port, 0)
        kubelet = self._kubelet(name, info.rest or "/", query)
        if number in (0, kubelet.port):
            return kubelet
        return replace(kubelet, scheme=scheme or "http", port=number, kubelet=False)

    def _pod(self, namespace: str, name: str) -> KubeObject:
        pod = self.registry.store.get(Key("pods", namespace, name))
        if pod is None:
            raise status.not_found("", "pods", name)
        return pod.obj

    def _kubelet_stream(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target | None:
        pod = self._pod(info.namespace, info.name)
        node = pod["spec"].get("nodeName")
        if info.subresource == "portforward":
            values = [value for _, value in named(query, "ports")]
            ports = [("port", port) for value in values for port in value.split(",")]
            self._assigned(info.name, node)
            return self._kubelet(node, f"/portForward/{info.namespace}/{info.name}", ports)
        container = container_of(pod, dict(query).get("container", ""))
        place = f"{info.namespace}/{info.name}/{container}"
        if info.subresource == "log":
            # A pod without a node has no logs yet.
            own = ("container", "insecureSkipTLSVerifyBackend")
            kept = [(key, value) for key, value in query if key not in own]
            return self._kubelet(node, f"/containerLogs/{place}", kept) if node else None
        phase = (pod.get("status") or {}).get("phase")
        if info.subresource == "exec" and phase in ("Succeeded", "Failed"):
            text = "cannot exec into a container in a completed pod; current phase is"
            raise status.bad_request(f"{text} {phase}")
        self._assigned(info.name, node)
        return self._kubelet(node, f"/{info.subresource}/{place}", stream_parameters(query))

    def _assigned(self, name: str, node: str | None) -> None:
        if not node:
            raise status.bad_request(f"pod {name} does not have a host assigned")

    def _pod_proxy(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target:
        scheme, name, port = split_scheme_name_port(info.name, "pod")
        pod = self._pod(info.namespace, name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise status.bad_request("address not allowed")
        containers = pod["spec"]["containers"]
        ports = [port for container in containers for port in container.get("ports") or []]
        number = ports[0]["containerPort"] if ports else 443 if scheme == "https" else 80
        return Target(scheme or "http", address, port_number(port, number), info.rest or "/", query)

    def _service_proxy(self, info: RequestInfo, query: list[tuple[str, str]]) -> Target:
        scheme, name, port = split_scheme_name_port(info.name, "service")
        service = self.registry.store.get(Key("services", info.namespace, name))
        if service is None:
            raise status.not_found("", "services", name)
        wanted = service_port_name(service.obj, port)
        endpoints = list(self._ready_endpoints(info.namespace, name, wanted))
        if not endpoints:
            raise status.service_unavailable(f'no endpoints available for service "{name}"')
        address, number = random.choice(endpoints)
        return Target(scheme or "http", address, number, info.rest or "/", query)

    def _ready_endpoints(
        self, namespace: str, service: str, port: str
    ) -> Iterator[tuple[str, int]]:
        for stored in self.registry.store.items("endpointslices.discovery.k8s.io"):
            labels = stored.obj["metadata"].get("labels") or {}
            owner = (stored.key.namespace, labels.get("kubernetes.io/service-name"))
            if owner != (namespace, service):
                continue
            numbers = [
                item["port"]
                for item in stored.obj.get("ports") or []
                if item.get("port") and (item.get("name") or "") == port
            ]
            for endpoint in stored.obj.get("endpoints") or []:
                if numbers and (endpoint.get("conditions") or {}).get("ready", True):
                    yield endpoint["addresses"][0], numbers[0]

    def _tls(self, target: Target) -> ssl.SSLContext | None:
        if target.scheme != "https":
            return None
        return self._kubelet_tls() if target.kubelet else _unverified()

    def _kubelet_tls(self) -> ssl.SSLContext:
        if self._context is None:
            context = ssl.create_default_context(cafile=self.authority or None)
            if not self.authority:
                # Like upstream without --kubelet-certificate-authority, this does not verify
                # kubelets.
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
            self._context = context
        return self._context

    async def _forward(
        self,
        request: web.BaseRequest,
        target: Target,
        info: RequestInfo,
    ) -> web.StreamResponse:
        session = self._connections()
        body = await request.read() if request.body_exists else None
        url = f"{target.scheme}://{target.authority}{target.path_and_query}"
        prefix = info.path.removesuffix(info.rest)
        place = Place(prefix, target.authority, request.headers.get("Host", ""))
        try:
            async with session.request(
                request.method,
                URL(url, encoded=True),
                data=body,
                headers=_sent_on(request, info, place),
                ssl=self._tls(target) or True,
                allow_redirects=False,
            ) as answer:
                if info.subresource == "proxy":
                    return await _relay_proxied(request, answer, place)
                await _check_log_answer(answer, info.name)
                if is_websocket(request):
                    return await send_as_messages(request, answer.content.iter_any())
                return await relay(request, answer, answer.headers)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            if info.subresource == "proxy":
                text = f"error trying to reach service: {_why(target, error)}"
                raise status.service_unavailable(text) from error
            raise _dial_error(request, target, error) from error

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=DIAL_SECONDS),
            )  # fmt: skip
        return self._session

    async def kubelet_json(self, node: str, path: str) -> KubeObject:
        """A document of a node's kubelet; raises StatusError or OSError when there is none."""
        target = self._kubelet(node, path, ())
        url = URL(f"{target.scheme}://{target.authority}{path}", encoded=True)
        try:
            async with self._connections().get(url, ssl=self._tls(target) or True) as answer:
                if answer.status != 200:
                    raise OSError(f"{url}: HTTP {answer.status}")
                document: KubeObject = orjson.loads(await answer.read())
                return document
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error

    async def _upgrade(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        context = self._tls(target)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                reader, writer = await asyncio.open_connection(
                    target.host,
                    target.port,
                    ssl=context,
                    limit=BUFFER,
                )
        except (OSError, TimeoutError) as error:
            raise _dial_error(request, target, error) from error
        try:
            writer.write(request_head(request.method, target, request.headers))
            head, refused = await read_answer(reader)
            if refused is not None:
                if wants_stream_close(request):
                    return await say_on_error_channel(request, refused)
                return refused
            await tunnel(request, head, reader, writer)
            return Hijacked()
        except (asyncio.IncompleteReadError, BackendError, OSError) as error:
            raise status.internal_error(f"error dialing backend: {error}") from error
        finally:
            writer.close()


def _dial_error(
    request: web.BaseRequest,
    target: Target,
    error: BaseException,
) -> status.StatusError:
    reason = str(error) or type(error).__name__
    if target.scheme == "https" and target.port == _KUBELET_PORT and request.path.endswith("/log"):
        url = f"https://{target.authority}{target.path_and_query}"
        return status.internal_error(f'Get "{url}": dial tcp {target.authority}: {reason}')
    return status.internal_error(f"error dialing backend: dial tcp {target.authority}: {reason}")


async def _check_log_answer(answer: aiohttp.ClientResponse, pod: str) -> None:
    """Turns the kubelet's error text into a Status; raises StatusError.

    This is upstream's GenericHttpResponseChecker (registry/generic/rest).
    """
    if 200 <= answer.status <= 206:
        return
    text = (await answer.content.read(_ERROR_TEXT)).decode(errors="replace")
    if answer.status == 400:
        raise status.bad_request(text)
    if answer.status == 500:
        raise status.internal_error(text)
    raise status.backend_response(answer.status, text, f"pods/log {pod}")


async def _relay_proxied(
    request: web.BaseRequest,
    answer: aiohttp.ClientResponse,
    place: Place,
) -> web.StreamResponse:
    headers = answer_headers(place, CIMultiDict(answer.headers))
    if request.method == "HEAD" or not has_links(answer.headers):
        return await relay(request, answer, headers)
    page = await answer.read()
    try:
        encoding = answer.headers.get("Content-Encoding", "")
        body = await asyncio.to_thread(rewritten_body, place, encoding, page)
    except ValueError as error:
        raise status.service_unavailable(f"error trying to reach service: {error}") from error
    kept = CIMultiDict(
        (key, value)
        for key, value in headers.items()
        if key.lower() not in HOP_BY_HOP | {"content-length"}
    )
    return web.Response(status=answer.status, reason=answer.reason, headers=kept, body=body)


def _sent_on(request: web.BaseRequest, info: RequestInfo, place: Place) -> CIMultiDict[str]:
    """The headers for the backend. A proxied one gets the client's Host, address and path, too."""
    dropped = HOP_BY_HOP | {"authorization", "content-length"}
    if info.subresource != "proxy":
        dropped |= {"host"}
    kept = CIMultiDict(
        (key, value) for key, value in request.headers.items() if key.lower() not in dropped
    )
    if info.subresource == "proxy":
        kept["X-Forwarded-Uri"] = forwarded_uri(place, info.rest)
        if request.remote:
            before = ", ".join(kept.popall("X-Forwarded-For", []))
            kept["X-Forwarded-For"] = f"{before}, {request.remote}" if before else request.remote
    return kept


def _why(target: Target, error: BaseException) -> str:
    """A failure in the words of Go's net package."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, TimeoutError):
        return f"dial tcp {target.authority}: i/o timeout"
    if isinstance(cause, OSError) and cause.errno:
        return f"dial tcp {target.authority}: connect: {os.strerror(cause.errno).lower()}"
    return str(error) or type(error).__name__


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
