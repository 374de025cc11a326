"""The paths that are not resources: discovery, OpenAPI, health, version, metrics, the issuer's
keys.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import orjson
from aiohttp import web

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http import discovery
from kubewire.components.apiserver.http.metrics import Metrics
from kubewire.components.apiserver.http.negotiation import MediaType, parse_accept
from kubewire.components.apiserver.http.tokens import ServiceAccountTokens
from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.openapi.models import RELEASE
from kubewire.components.apiserver.registry.catalog import Catalog
from kubewire.components.base.prometheus import CONTENT_TYPE as METRICS_TYPE
from kubewire.components.kubeapi.resources import KubeObject

_MAJOR, _MINOR, _ = RELEASE.split(".")
VERSION = {
    "major": _MAJOR,
    "minor": _MINOR,
    "emulationMajor": _MAJOR,
    "emulationMinor": _MINOR,
    "minCompatibilityMajor": _MAJOR,
    "minCompatibilityMinor": str(int(_MINOR) - 1),
    "gitVersion": f"v{RELEASE}+kubewire",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-06-10T00:00:00Z",
    "goVersion": f"python{platform.python_version()}",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
_CHECKS = ("ping", "log", "etcd", "poststarthook/bootstrap-controller")
_PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_PROTOBUF_V3 = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
_PROTOBUF_V2_SHORT = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PROTOBUF_V3_SHORT = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"


class OpenApi(Protocol):
    """The functions of the openapi package."""

    def v2_json(self, kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]: ...
    def v2_protobuf(self, kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> bytes: ...
    def v3_index(self, kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]: ...
    def v3(
        self,
        group_version: str,
        kinds: Sequence[KindSpec],
        crds: Sequence[KubeObject],
    ) -> dict[str, Any]: ...
    def v3_protobuf(
        self,
        group_version: str,
        kinds: Sequence[KindSpec],
        crds: Sequence[KubeObject],
    ) -> bytes: ...


@dataclass
class Documents:
    """Answers requests for documents, which are made on demand and cached until the catalog
    changes.

    crds() returns the established CustomResourceDefinitions.
    """

    catalog: Catalog
    kinds: tuple[KindSpec, ...]
    crds: Callable[[], list[KubeObject]]
    openapi: OpenApi
    tokens: ServiceAccountTokens
    metrics: Metrics
    advertised: str
    issuer: str
    _cache: tuple[int, dict[str, bytes]] = field(default=(-1, {}), init=False)

    def answer(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answers a GET or HEAD; raises 404, or 405 for other methods."""
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed() if path.startswith("/api") else status.no_such_path()
        accept = parse_accept(request.headers.get("Accept", ""))
        parts = path.strip("/").split("/")
        match parts:
            case ["healthz" | "livez" | "readyz" as name, *rest]:
                return _health(name, "/".join(rest), "verbose" in request.query_string)
            case ["version"]:
                return self._json(VERSION)
            case ["metrics"]:
                return web.Response(
                    body=self.metrics.text().encode(),
                    headers={"Content-Type": METRICS_TYPE},
                )
            case ["api"] | ["apis"]:
                return self._root(parts[0] == "api", accept, request)
            case ["api", "v1"]:
                return self._json_or_404(discovery.api_resource_list(self.catalog, "", "v1"))
            case ["apis", group]:
                return self._json_or_404(discovery.api_group(self.catalog, group))
            case ["apis", group, version]:
                return self._json_or_404(discovery.api_resource_list(self.catalog, group, version))
            case ["openapi", "v2"]:
                return self._openapi_v2(accept, request)
            case ["openapi", "v3"]:
                return self._cached("v3", self._openapi_index, request)
            case ["openapi", "v3", *rest]:
                return self._openapi_v3("/".join(rest), accept, request)
            case [".well-known", "openid-configuration"]:
                return self._json(self._issuer_configuration())
            case ["openid", "v1", "jwks"]:
                return self._json(self.tokens.jwks(), "application/jwk-set+json")
            case [""]:
                return self._json({"paths": self._paths()})
        raise status.no_such_path()

    def _root(
        self,
        core: bool,
        accept: tuple[MediaType, ...],
        request: web.BaseRequest,
    ) -> web.Response:
        for entry in accept:
            version = entry.parameters.get("v", "")
            aggregated = entry.asks_for("APIGroupDiscoveryList", "apidiscovery.k8s.io")
            if aggregated and version in ("v2", "v2beta1"):
                name = f"{'api' if core else 'apis'}/{version}"
                parameters = f"g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                media_type = f"application/json;{parameters}"
                return self._cached(
                    name,
                    partial(self._aggregated, core, version),
                    request,
                    media_type,
                )
            plain_types = ("application/json", "*/*", "application/*")
            if entry.type in plain_types and "as" not in entry.parameters:
                break
        if core:
            return self._json(discovery.api_versions(self.advertised))
        return self._cached("apis", self._api_groups, request)

    def _api_groups(self) -> bytes:
        return orjson.dumps(discovery.api_group_list(self.catalog))

    def _aggregated(self, core: bool, version: str) -> bytes:
        return orjson.dumps(discovery.aggregated(self.catalog, core, version))

    def _openapi_index(self) -> bytes:
        index = self.openapi.v3_index(self.kinds, self.crds())
        for group, version in self.catalog.remote:
            path = f"apis/{group}/{version}"
            index["paths"][path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
        return orjson.dumps(index)

    def _openapi_v2(self, accept: tuple[MediaType, ...], request: web.BaseRequest) -> web.Response:
        if _prefers(accept, (_PROTOBUF_V2, _PROTOBUF_V2_SHORT)):
            return self._cached("v2.pb", self._v2_protobuf, request, _PROTOBUF_V2_SHORT)
        return self._cached("v2", self._v2_json, request)

    def _v2_json(self) -> bytes:
        return orjson.dumps(self.openapi.v2_json(self.kinds, self.crds()))

    def _v2_protobuf(self) -> bytes:
        return self.openapi.v2_protobuf(self.kinds, self.crds())

    def _openapi_v3(
        self,
        path: str,
        accept: tuple[MediaType, ...],
        request: web.BaseRequest,
    ) -> web.Response:
        prefix = "apis/" if path.startswith("apis/") else "api/"
        group_version = path.removeprefix(prefix)
        group, _, version = group_version.rpartition("/")
        if version not in discovery.group_versions(self.catalog).get(group, []):
            raise status.no_such_path()
        if _prefers(accept, (_PROTOBUF_V3, _PROTOBUF_V3_SHORT)):
            make = partial(self._v3_protobuf, group_version)
            return self._cached(f"{path}.pb", make, request, _PROTOBUF_V3_SHORT)
        return self._cached(path, partial(self._v3_json, group_version), request)

    def _v3_json(self, group_version: str) -> bytes:
        return orjson.dumps(self.openapi.v3(group_version, self.kinds, self.crds()))

    def _v3_protobuf(self, group_version: str) -> bytes:
        return self.openapi.v3_protobuf(group_version, self.kinds, self.crds())

    def _cached(
        self,
        name: str,
        make: Callable[[], bytes],
        request: web.BaseRequest,
        media_type: str = "application/json",
    ) -> web.Response:
        # Several threads run this. A document made while the catalog changes goes into the cache
        # of the old catalog, where no later request finds it.
        serial, cache = self._cache
        if serial != self.catalog.serial:
            serial, cache = self._cache = (self.catalog.serial, {})
        body = cache.get(name)
        if body is None:
            body = cache[name] = make()
        etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
        headers = {
            "Content-Type": media_type,
            "ETag": etag,
            "Vary": "Accept",
            "Cache-Control": "public",
        }
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    def _issuer_configuration(self) -> KubeObject:
        return {
            "issuer": self.issuer,
            "jwks_uri": f"https://{self.advertised}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _paths(self) -> list[str]:
        paths = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"]
        for group, versions in discovery.group_versions(self.catalog).items():
            if group:
                paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        paths += [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
        ]
        return sorted([*paths, "/version"])

    def _json(self, body: Any, media_type: str = "application/json") -> web.Response:
        return web.Response(body=orjson.dumps(body), headers={"Content-Type": media_type})

    def _json_or_404(self, body: KubeObject | None) -> web.Response:
        if body is None:
            raise status.no_such_path()
        return self._json(body)


def _prefers(accept: tuple[MediaType, ...], names: tuple[str, ...]) -> bool:
    for entry in accept:
        if entry.type in names:
            return True
        if entry.type in ("application/json", "*/*"):
            return False
    return False


def _health(name: str, check: str, verbose: bool) -> web.Response:
    if check and check not in _CHECKS:
        raise status.no_such_path()
    text = "ok"
    if verbose:
        lines = [f"[+]{item} ok" for item in _CHECKS] if not check else [f"[+]{check} ok"]
        text = "\n".join([*lines, f"{name} check passed\n"])
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=text.encode(), headers=headers)
