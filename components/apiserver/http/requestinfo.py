"""Parses what a URL asks for (RequestInfoFactory of apiserver/pkg/endpoints/request)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get"}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True)
class RequestInfo:
    """The parts of a URL.

    verb is get, list, watch, create, update, patch, delete or deletecollection, and the method in
    lower case for paths that are not resources. rest is the path after a connecting subresource,
    as in pods/NAME/proxy/REST, with its leading slash if there is one.
    """

    is_resource: bool
    verb: str
    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""

    @property
    def scope(self) -> str:
        """The label scope of the request metrics."""
        if self.name or self.verb == "create":
            return "resource"
        return "namespace" if self.namespace else "cluster"


def parse(method: str, raw_path: str, query: dict[str, str]) -> RequestInfo:
    """Parses a path, which is percent-encoded and without the query."""
    parts = raw_path.strip("/").split("/")
    if "%" in raw_path:
        parts = [unquote(part) for part in parts]
    if parts[0] == "api" and len(parts) > 2:
        group = ""
        version = parts[1]
        rest = parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group = parts[1]
        version = parts[2]
        rest = parts[3:]
    else:
        return RequestInfo(False, method.lower(), raw_path)
    watching = rest[0] == "watch" and len(rest) > 1
    rest = rest[1:] if watching else rest
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
        elif group == "":
            namespace = ""
    plural = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    taken = len(parts) - len(rest) + 3
    tail = raw_path.lstrip("/").split("/", taken)[taken:] if subresource else []
    verb = _verb(method, name, watching or flag(query.get("watch")))
    return RequestInfo(
        True,
        verb,
        raw_path,
        group,
        version,
        namespace,
        plural,
        name,
        subresource,
        f"/{tail[0]}" if tail else "",
    )


def _verb(method: str, name: str, watching: bool) -> str:
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    if method in ("GET", "HEAD") and watching:
        return "watch"
    if method in ("GET", "HEAD") and not name:
        return "list"
    return _VERBS.get(method, method.lower())


def flag(value: str | None) -> bool:
    """A boolean query parameter.

    It is true when it is given and neither "0" nor "false" in any case (apimachinery's
    conversion).
    """
    return value is not None and value.lower() not in ("false", "0")
