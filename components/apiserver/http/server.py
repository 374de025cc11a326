"""The HTTP server: authenticates a request, finds its resource and calls the endpoint.

A request passes these stages, the same as in upstream's chain of handlers:

1. The URL is parsed into a RequestInfo: verb, group, version, resource, namespace, name,
   subresource.
2. The user is authenticated, and becomes another one if the request impersonates. Then the
   authorizers (access) allow the request or refuse it. Admission happens in the registry.
3. The catalog finds the resource. Paths that are not resources, such as discovery, go to
   documents.py; subresources that connect to a kubelet or a pod go to connect.py.
4. The endpoint of the verb decodes the body, calls the registry and encodes the answer.

The server is aiohttp's low-level one, which parses requests and manages connections. It has no
router, because the resources change at run time with every CustomResourceDefinition and are in the
catalog. It has no middlewares, because a watch writes directly to its connection.

Two rules must always hold. Any error of one request ends as a Status answer to that request and
never stops the server. No request keeps the others waiting: the event loop does only what takes a
few milliseconds, and larger work goes to a worker thread (owner.py). _is_light() decides between
the two before anything is decoded, from sizes and counts.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge

from kubewire.components.apiserver import bodies, status
from kubewire.components.apiserver.access.modes import Union
from kubewire.components.apiserver.crd import customresources
from kubewire.components.apiserver.http import (
    authorization,
    connectoptions,
    discovery,
    protobuf,
    requestinfo,
)
from kubewire.components.apiserver.http.aggregation.aggregator import Aggregator
from kubewire.components.apiserver.http.authentication import Authenticator
from kubewire.components.apiserver.http.connect import Connector
from kubewire.components.apiserver.http.documents import Documents
from kubewire.components.apiserver.http.endpoints import Call, Endpoints
from kubewire.components.apiserver.http.metrics import Metrics
from kubewire.components.apiserver.http.negotiation import (
    decode_object,
    encode,
    media_type_of,
    representation,
    wants_pretty,
)
from kubewire.components.apiserver.http.requestinfo import RequestInfo
from kubewire.components.apiserver.http.reviews import Reviewer
from kubewire.components.apiserver.http.routes import has_subresource, route_of
from kubewire.components.apiserver.http.upgrade import Connection
from kubewire.components.apiserver.http.warningheaders import warning_headers
from kubewire.components.apiserver.owner import OwnerThread
from kubewire.components.apiserver.registry.admission.plugin import Operation
from kubewire.components.apiserver.registry.admission.webhooks import rules
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.requests import Target, WriteOptions
from kubewire.components.apiserver.store import Key, RevisionMismatch
from kubewire.components.apiserver.users import User
from kubewire.components.base.connections import refused_version
from kubewire.components.kubeapi.resources import KubeObject

log = logging.getLogger(__name__)

#: The most bytes of a request line or a header; Go's net/http allows a megabyte for all of them.
_MAX_LINE = 64 * 1024
# Requests up to these sizes are processed in the event loop, larger ones in a worker thread
# (owner.py).
#: Objects of a list that needs work for each object, such as the cells of a Table.
_LIGHT_LIST = 100
#: Objects of a JSON list, which only joins stored bytes.
_LIGHT_JSON_LIST = 1000
_LIGHT_LIST_BYTES = 4 * 1024 * 1024
_LIGHT_OBJECT = 32 * 1024
_LIGHT_YAML = 2 * 1024
_LIGHT_QUERY = 1024
_LIGHT_ANSWER = 256 * 1024
#: How often a request is attempted when other writes to the object come in between.
_ATTEMPTS = 20
_CONNECTING = frozenset({"exec", "attach", "portforward", "log", "proxy"})
#: The operations of admission that each verb may lead to: applying may create.
_OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "create": ("CREATE",),
    "update": ("UPDATE",),
    "patch": ("UPDATE", "CREATE"),
    "delete": ("DELETE",),
    "deletecollection": ("DELETE",),
}
_HAS_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_VIRTUAL = {(kind.group, kind.version, kind.plural): kind for kind in discovery.VIRTUAL_KINDS}


class _Server(web.Server):
    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


@dataclass
class ApiServer:
    """handle() answers a request; serve() listens on sockets."""

    access: Union
    catalog: Catalog
    endpoints: Endpoints
    connector: Connector
    aggregator: Aggregator
    authenticator: Authenticator
    documents: Documents
    metrics: Metrics
    tls: ssl.SSLContext
    _listeners: list[asyncio.Server] = field(default_factory=list, init=False)
    _server: _Server | None = field(default=None, init=False)

    async def serve(self, sockets: list[Any]) -> None:
        self._server = _Server(
            self.handle,
            request_factory=_make_request,
            handler_cancellation=True,
            keepalive_timeout=600.0,
            access_log=None,
            # Like upstream, the server does not decompress bodies: a compressed one is not valid
            # JSON and gets 400.
            auto_decompress=False,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            tcp_keepalive=True,
        )
        loop = asyncio.get_running_loop()
        for listening in sockets:
            listener = await loop.create_server(
                self._server,
                sock=listening,
                ssl=self.tls,
                backlog=1024,
            )
            self._listeners.append(listener)

    async def close(self) -> None:
        """Stops listening and ends every request, watches included."""
        for listener in self._listeners:
            listener.close()
        if self._server is not None:
            await self._server.shutdown(0.5)
        await self.connector.close()
        await self.aggregator.close()
        await self.endpoints.registry.admission.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request, turning every error into a Status."""
        if (refused := refused_version(request)) is not None:
            return refused
        started = time.perf_counter()
        # request.query_string is already decoded, so parsing it would decode %255d twice.
        pairs = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
        # Of repeated parameters the first one counts.
        query = dict(reversed(pairs))
        info = requestinfo.parse(request.method, request.rel_url.raw_path, query)
        long_running = info.verb == "watch" or info.subresource in _CONNECTING
        counted = self._counted(info)
        self.metrics.begin(counted, long_running)
        code = 500
        try:
            response = await self._answer(request, info, query)
            code = response.status
        except asyncio.CancelledError:
            code = 499
            raise
        except status.StatusError as error:
            code = error.code
            # What could not be negotiated is said in JSON.
            accept = request.headers.get("Accept", "") if code != 406 else ""
            response = _failure(error, accept)
        except HTTPRequestEntityTooLarge:
            code = 413
            response = _failure(status.too_large(str(bodies.bytes_limit())))
        except bodies.TooLarge as error:
            code = 413
            response = _failure(status.too_large(str(error)))
        except ConnectionError:
            raise
        # An unexpected error fails only its own request (upstream's WithPanicRecovery).
        except Exception as error:
            log.exception("%s %s", request.method, request.path_qs)
            response = _failure(status.internal_error(f"{type(error).__name__}: {error}"))
        finally:
            seconds = time.perf_counter() - started
            self.metrics.end(counted, long_running, code, seconds, "dryRun" in query)
        log.debug("%s %s %d %.1f ms", request.method, request.path_qs, code, seconds * 1e3)
        if wants_pretty(query, request.headers.get("User-Agent", "")):
            await self._indent(response)
        return response

    def _counted(self, info: RequestInfo) -> RequestInfo:
        """The request as the metrics count it, without names that are not served.

        The metrics keep every label value, so names invented by clients would use up memory.
        """
        if not info.is_resource:
            return info
        served = self.catalog.find(info.group, info.version, info.plural)
        if served is None and (info.group, info.version, info.plural) not in _VIRTUAL:
            return RequestInfo(False, info.verb, info.path)
        if not info.subresource:
            return info
        known = served is not None and has_subresource(served, info.subresource)
        return info if known else replace(info, subresource="")

    async def _indent(self, response: web.StreamResponse) -> None:
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return
        if len(response.body) <= _LIGHT_ANSWER:
            _indent(response)
        else:
            await self._owner.run(lambda: _indent(response))

    async def _answer(
        self,
        request: web.BaseRequest,
        info: RequestInfo,
        query: dict[str, str],
    ) -> web.StreamResponse:
        user = authorization.acting_as(self.access, request.headers, self._user(request))
        authorization.authorize(self.access, info, query, user)
        if (api_service := self.aggregator.find(info.path)) is not None:
            return await self.aggregator.serve(request, user, api_service)
        if not info.is_resource:
            if info.path.startswith("/openapi"):
                return await self._owner.run(lambda: self.documents.answer(request, info.path))
            return self.documents.answer(request, info.path)
        virtual = _VIRTUAL.get((info.group, info.version, info.plural))
        if virtual is not None and "create" in virtual.verbs:
            return await self._review(request, info, virtual, user)
        if virtual is not None:
            return await self._computed(request, info, virtual, query)
        served = self.catalog.find(info.group, info.version, info.plural)
        if served is None:
            raise status.no_such_path()
        if info.subresource in _CONNECTING and has_subresource(served, info.subresource):
            pairs = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
            await self._admit_connection(info, served, pairs, user)
            return await self.connector.serve(request, info, pairs)
        body = await request.read() if request.method in _HAS_BODY else b""
        call = Call(request, info, served, query, body, user)
        if info.verb == "watch" and not info.subresource:
            return await self.endpoints.watch(call)
        route = route_of(self.endpoints, call)
        if self._waits(call):
            response = await self._owner.run_waiting(lambda: _retry_on_conflict(route, call))
        elif self._is_light(call):
            response = route(call)
        else:
            response = await self._owner.run(lambda: _retry_on_conflict(route, call))
        if served.deprecation:
            for header in warning_headers([served.deprecation]):
                response.headers.add("Warning", header)
        return response

    @property
    def _owner(self) -> OwnerThread:
        return self.endpoints.registry.store.owner

    async def _admit_connection(
        self,
        info: RequestInfo,
        served: Served,
        pairs: list[tuple[str, str]],
        user: User,
    ) -> None:
        """Takes exec, attach, portforward and proxy through admission; raises StatusError."""
        kind = connectoptions.KINDS.get((info.plural, info.subresource))
        if kind is None:
            return
        body = connectoptions.body(kind, pairs, info.rest)
        options = WriteOptions(user=user)
        target = Target(served, "CONNECT", info.namespace, info.name, info.subresource, options)
        registry = self.endpoints.registry

        def admit() -> None:
            registry.admit_body(target, body, {}, ("", "v1", kind))

        if registry.admission.waits(served, ("CONNECT",), info.subresource):
            await self._owner.run_waiting(admit)
        else:
            admit()

    def _waits(self, call: Call) -> bool:
        """Whether the request may have to wait for a webhook."""
        if call.served.converts is not None:
            return True
        operations = _OPERATIONS.get(call.info.verb)
        if operations is None:
            return False
        admission = self.endpoints.registry.admission
        return admission.waits(call.served, operations, call.info.subresource)

    def _is_light(self, call: Call) -> bool:
        """Whether the request takes at most a few milliseconds, whatever its content."""
        info = call.info
        served = call.served
        store = self.endpoints.registry.store
        if len(call.request.query_string) > _LIGHT_QUERY:
            return False
        accept = call.request.headers.get("Accept", "")
        yaml = "yaml" in accept
        if not info.name and info.verb != "create":
            limit = _LIGHT_JSON_LIST
            if ";" in accept or "protobuf" in accept or info.verb == "deletecollection":
                limit = _LIGHT_LIST
            if yaml:
                limit = 1
            is_short = store.count(served.storage) <= limit
            is_small = store.size(served.storage) <= _LIGHT_LIST_BYTES
            return is_short and is_small and len(call.body) <= _LIGHT_OBJECT
        namespace = info.namespace if served.namespaced else ""
        stored = store.get(Key(served.storage, namespace, info.name))
        size = max(len(call.body), len(stored.body) if stored is not None else 0)
        if size > (_LIGHT_YAML if yaml else _LIGHT_OBJECT):
            return False
        if not call.body:
            return True
        # The work of a schema does not depend on the object's size alone, and a pattern of ten
        # characters or an expression may take 50 ms to compile.
        compiles = served.storage == customresources.STORAGE or served.group == rules.GROUP
        if info.verb != "delete" and (served.custom or compiles):
            return False
        return bodies.is_light(call.body, call.media_type or "json")

    async def _computed(
        self,
        request: web.BaseRequest,
        info: RequestInfo,
        virtual: discovery.VirtualKind,
        query: dict[str, str],
    ) -> web.Response:
        from kubewire.components.apiserver.http.computed import (
            COMPONENT_STATUSES,
            Computed,
            table_of,
        )

        computed = Computed(self.endpoints.registry, self.connector)
        answer = await computed.answer(info, virtual.kind, query)
        if info.plural == COMPONENT_STATUSES.plural:
            shape = representation(request.headers.get("Accept", ""))
            if shape.kind == "Table":
                include = query.get("includeObject") or "Metadata"
                answer = table_of(answer, shape.version, include)
        response = _json(answer)
        if virtual.deprecation:
            for header in warning_headers([virtual.deprecation]):
                response.headers.add("Warning", header)
        return response

    async def _review(
        self,
        request: web.BaseRequest,
        info: RequestInfo,
        virtual: discovery.VirtualKind,
        user: User,
    ) -> web.Response:
        if info.verb != "create":
            raise status.method_not_allowed()
        accept = request.headers.get("Accept", "")
        representation(accept, tables=False)
        sent = await request.read()
        content_type = request.headers.get("Content-Type", "")

        def reviewed() -> web.Response:
            body = decode_object(sent, content_type)
            self.endpoints.registry.decoding.typed(
                body, virtual.group, virtual.version, virtual.kind
            )
            version = f"{virtual.group}/{virtual.version}"
            reviewer = Reviewer(user, self.authenticator, self.access, self._owner)
            answer = reviewer.review(virtual.kind, version, body, info.namespace)
            return _object(answer, 201, accept)

        light = bodies.is_light(sent, media_type_of(content_type) or "json")
        return reviewed() if light else await self._owner.run(reviewed)

    def _user(self, request: web.BaseRequest) -> User:
        """The user of a request; raises 401."""
        connection = request.protocol
        credentials = request.headers.get("Authorization", "")
        if not credentials and isinstance(connection, Connection) and connection.user is not None:
            return connection.user
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        user = self.authenticator.authenticate(certificate, credentials)
        if user is None:
            raise status.unauthorized()
        if certificate and isinstance(connection, Connection):
            connection.user = user
        return user


def _retry_on_conflict(route: Callable[[Call], web.Response], call: Call) -> web.Response:
    """Repeats a request when another write came between its read and its write.

    This happens only in worker threads. Upstream's storage does the same in GuaranteedUpdate.
    """
    for _ in range(_ATTEMPTS):
        try:
            return route(call)
        except RevisionMismatch:
            continue
    raise status.conflict(call.served.group, call.served.plural, call.info.name)


def _make_request(
    message: Any,
    payload: Any,
    protocol: Any,
    writer: Any,
    task: Any,
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message,
        payload,
        protocol,
        writer,
        task,
        loop,
        client_max_size=bodies.MAX_BYTES,
    )


def _indent(response: web.StreamResponse) -> None:
    if not isinstance(response, web.Response) or response.prepared:
        return
    if response.content_type != "application/json":
        return
    if isinstance(response.body, bytes) and "Content-Encoding" not in response.headers:
        style = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        response.body = orjson.dumps(orjson.loads(response.body), option=style)


def _json(body: Any, code: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json"}
    return web.Response(body=orjson.dumps(body), status=code, headers=headers)


def _object(body: KubeObject, code: int, accept: str) -> web.Response:
    """An object that is not stored, in protobuf for clients that prefer it."""
    if protobuf.MEDIA_TYPE not in accept:
        return _json(body, code)
    try:
        shape = replace(representation(accept, tables=False), kind="")
    except status.StatusError:
        return _json(body, code)
    headers = {"Content-Type": shape.content_type}
    return web.Response(body=encode(orjson.dumps(body), shape), status=code, headers=headers)


def _failure(error: status.StatusError, accept: str = "") -> web.Response:
    response = _object(error.body, error.code, accept)
    response.headers.update(error.headers)
    return response
