"""Which endpoint answers a verb of a resource or subresource."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from aiohttp import web

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http import discovery, ephemeral, patching
from kubewire.components.apiserver.http.endpoints import Call, Endpoints
from kubewire.components.apiserver.http.negotiation import decode_object
from kubewire.components.apiserver.http.requestinfo import RequestInfo
from kubewire.components.apiserver.registry.catalog import Served


def route_of(endpoints: Endpoints, call: Call) -> Callable[[Call], web.Response]:
    """The endpoint of a verb; raises 404 and 405 as the generic API server does."""
    info = call.info
    served = call.served
    if info.namespace and not served.namespaced:
        raise status.no_such_path()
    if info.subresource:
        return _subresource_route(endpoints, info, served)
    if served.namespaced and not info.namespace and info.verb not in ("list", "watch"):
        raise status.method_not_allowed()
    routes: dict[str, Callable[[Call], web.Response]] = {
        "get": endpoints.get,
        "list": endpoints.list_objects,
        "create": endpoints.create,
        "update": endpoints.update,
        "patch": endpoints.patch,
        "delete": endpoints.delete,
        "deletecollection": endpoints.delete_collection,
    }
    verb = "" if info.verb == "create" and info.name else info.verb
    if verb == "deletecollection" and served.storage == "namespaces":
        verb = ""
    if verb in ("update", "patch") and not info.name:
        verb = ""
    if verb not in routes:
        raise status.method_not_allowed()
    return routes[verb]


def _subresource_route(
    endpoints: Endpoints,
    info: RequestInfo,
    served: Served,
) -> Callable[[Call], web.Response]:
    if not has_subresource(served, info.subresource):
        raise status.no_such_path()
    name = info.subresource
    verb = info.verb
    if name == "scale" and verb == "get":
        return endpoints.scale
    if name in ("status", "scale", "approval") and verb in ("get", "update", "patch"):
        routes = {
            "get": endpoints.get,
            "update": endpoints.update,
            "patch": endpoints.patch,
        }
        return routes[verb]
    if name == "ephemeralcontainers" and verb in ("get", "update", "patch"):
        return endpoints.get if verb == "get" else partial(_add_containers, endpoints)
    if name == "finalize" and verb == "update":
        return endpoints.update
    if name in ("binding", "eviction", "token") and verb == "create":
        return endpoints.create_subresource
    raise status.method_not_allowed()


def _add_containers(endpoints: Endpoints, call: Call) -> web.Response:
    """PUT and PATCH of pods/ephemeralcontainers."""
    if call.info.verb == "update":
        sent = decode_object(call.body, call.content_type)
        transform: ephemeral.Transform = lambda pod: sent  # noqa: E731
    else:
        merge_key = endpoints.merge_key
        transform, _ = patching.transform(call.served, call.media_type, call.body, merge_key)
    info = call.info
    options = call.write_options()
    registry = endpoints.registry
    result = ephemeral.update(
        registry,
        call.served,
        info.namespace,
        info.name,
        transform,
        options,
    )
    return web.Response(body=result.body, headers={"Content-Type": "application/json"})


def has_subresource(served: Served, name: str) -> bool:
    return any(subresource.name == name for subresource in discovery.subresources(served))
