"""The verbs over HTTP: each decodes a request, calls the registry and encodes the result
(apiserver/pkg/endpoints/handlers).
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from aiohttp import web

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http import (
    convertedwatch,
    eviction,
    patching,
    subresources,
    watching,
)
from kubewire.components.apiserver.http.listoptions import ListOptions
from kubewire.components.apiserver.http.negotiation import (
    Representation,
    decode_object,
    decode_strictly,
    decode_yaml_strictly,
    encode,
    media_type_of,
    representation,
)
from kubewire.components.apiserver.http.requestinfo import RequestInfo, flag
from kubewire.components.apiserver.http.tokens import ServiceAccountTokens
from kubewire.components.apiserver.http.warningheaders import warning_headers
from kubewire.components.apiserver.kinds.labelselectors import check_requirements
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry import deletion, tables
from kubewire.components.apiserver.registry.admission.plugin import Operation
from kubewire.components.apiserver.registry.applying import apply_patch
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.fieldownership import ListKeysOf
from kubewire.components.apiserver.registry.registry import Registry, Strategy, Transform
from kubewire.components.apiserver.registry.requests import (
    Result,
    Selection,
    Target,
    WriteOptions,
    check_field_selector,
)
from kubewire.components.apiserver.store import RevisionExpired, Stored
from kubewire.components.apiserver.users import User
from kubewire.components.kubeapi.client import APPLY_PATCH
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import FieldSelector, LabelSelector, SelectorError

_MIN_WATCH_SECONDS = 1800
_STRATEGIES: dict[str, Strategy] = {
    "status": "status",
    "approval": "approval",
    "finalize": "raw",
}

#: Group, version and kind of the body that a subresource's POST takes.
_SCALE = ("autoscaling", "v1", "Scale")
_SUBRESOURCE_KINDS = {
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}


@dataclass(frozen=True)
class Call:
    """A request to a resource, decoded as far as all verbs need it."""

    request: web.BaseRequest
    info: RequestInfo
    served: Served
    query: Mapping[str, str]
    body: bytes
    user: User

    @property
    def content_type(self) -> str:
        return self.request.headers.get("Content-Type", "")

    @property
    def media_type(self) -> str:
        return media_type_of(self.content_type)

    @property
    def shape(self) -> Representation:
        return representation(self.request.headers.get("Accept", ""), self.served.custom)

    @property
    def other_shape(self) -> Representation:
        """The representation of an object of another kind, of which there is no Table."""
        shape = representation(self.request.headers.get("Accept", ""), tables=False)
        return replace(shape, kind="")

    @property
    def agent(self) -> str:
        """The default field manager: the name of the program in the User-Agent."""
        return self.request.headers.get("User-Agent", "").partition("/")[0][:128] or "unknown"

    def write_options(self, findings: tuple[str, ...] = ()) -> WriteOptions:
        """The options in the query, with what was found about the body itself."""
        validation = self.query.get("fieldValidation") or "Warn"
        if validation not in ("Ignore", "Warn", "Strict"):
            raise self._invalid_options("fieldValidation", validation, '"Ignore", "Strict", "Warn"')
        dry_run = self.query.get("dryRun", "")
        if dry_run not in ("", "All"):
            raise self._invalid_options("dryRun", [dry_run], '"All"')
        default_manager = "" if self.media_type == APPLY_PATCH else self.agent
        manager = self.query.get("fieldManager") or default_manager
        force = flag(self.query.get("force"))
        kind = self._options_kind
        return WriteOptions(dry_run == "All", manager, validation, force, self.user, kind, findings)

    def target(self, operation: Operation, options: WriteOptions) -> Target:
        """What the request is about, for the admission of its body."""
        info = self.info
        place = (info.namespace, info.name, info.subresource)
        return Target(self.served, operation, *place, options)

    @property
    def _options_kind(self) -> str:
        kinds = {"create": "CreateOptions", "update": "UpdateOptions"}
        return kinds.get(self.info.verb, "PatchOptions")

    def _invalid_options(self, name: str, value: Any, supported: str) -> status.StatusError:
        error = FieldError("NotSupported", name, value, f"supported values: {supported}")
        return status.invalid("meta.k8s.io", self._options_kind, "", [error])

    def selection(self) -> Selection:
        """The selectors of the query; raises 400 when they cannot be parsed."""
        try:
            labels = LabelSelector.parse(self.query.get("labelSelector", ""))
            check_requirements(labels)
            fields = FieldSelector.parse(self.query.get("fieldSelector", ""))
        except SelectorError as error:
            raise status.bad_request(str(error)) from error
        check_field_selector(self.served, fields)
        if self.info.name:
            fields = FieldSelector((*fields.terms, ("metadata.name", True, self.info.name)))
        return Selection(
            self.served,
            self.info.namespace,
            labels if labels.requirements else None,
            fields if fields.terms else None,
        )


@dataclass(frozen=True)
class Endpoints:
    """One method for each verb; each returns a response or raises StatusError."""

    registry: Registry
    tokens: ServiceAccountTokens
    merge_key: patching.MergeKeyOf
    list_keys: ListKeysOf

    def get(self, call: Call) -> web.Response:
        shape = call.shape
        info = call.info
        self._not_in_future(call.query.get("resourceVersion", ""))
        stored = self.registry.get(call.served, info.namespace, info.name)
        return self._answer(call, self.registry.result(call.served, stored), shape)

    def list_objects(self, call: Call) -> web.Response:
        shape = call.shape
        served = call.served
        options = ListOptions.parse(call.query, watching=False)
        selection = call.selection()
        selected, revision = self._snapshot(served, options)
        selected = [stored for stored in selected if selection.matches(stored)]
        limit = options.limit
        page = selected[:limit] if limit > 0 else selected
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if len(page) < len(selected):
            metadata["continue"] = _continue_token(revision, page[-1])
            if not selection.labels and not selection.fields:
                metadata["remainingItemCount"] = len(selected) - len(page)
        return self._list(call, page, metadata, shape)

    def _list(
        self,
        call: Call,
        items: list[Stored],
        metadata: dict[str, Any],
        shape: Representation,
    ) -> web.Response:
        if shape.protobuf and not shape.kind:
            # JSON is joined from stored bytes; here, too, the objects are not decoded again.
            body = _protobuf_list(self.registry, call.served, items, metadata)
            return web.Response(body=body, headers={"Content-Type": shape.content_type})
        body = _list_body(self.registry, call.served, items, metadata, shape, call.query)
        return _respond(body, shape)

    def _snapshot(self, served: Served, options: ListOptions) -> tuple[list[Stored], int]:
        """The objects of the resource before selection, and the revision of that state."""
        store = self.registry.store
        asked = options.resource_version
        if options.continue_token:
            if asked not in ("", "0"):
                raise status.bad_request(
                    "specifying resource version is not allowed when using continue",
                )
            revision, after = _parse_continue(options.continue_token)
            revision = revision or store.revision
            try:
                return store.list_at(served.storage, revision, after), revision
            except RevisionExpired as error:
                raise status.expired(
                    "The provided continue parameter is too old to display a consistent list "
                    "result. You can start a "
                    "new list without the continue parameter, or use the continue token in this "
                    "response to retrieve "
                    "the remainder of the results."
                ) from error
        self._not_in_future(asked)
        if options.exact:
            try:
                return store.list_at(served.storage, int(asked)), int(asked)
            except RevisionExpired as error:
                raise status.expired(
                    "The resourceVersion for the provided list is too old.",
                ) from error
        # Both are read in one step of the owner thread, so that no write comes between them.
        return store.owner.call(lambda: (store.items(served.storage), store.revision))

    def _not_in_future(self, asked: str) -> None:
        if asked and (revision := watching.parse_revision(asked)) > self.registry.store.revision:
            raise status.too_large_resource_version(revision, self.registry.store.revision)

    async def watch(self, call: Call) -> web.StreamResponse:
        asked = ListOptions.parse(call.query, watching=True)
        options = watching.WatchOptions(
            asked.resource_version,
            asked.bookmarks,
            asked.initial_events,
            asked.timeout or _MIN_WATCH_SECONDS * (1 + random.random()),
            call.query.get("includeObject") or "Metadata",
        )
        if call.served.converts is not None:
            shape = call.shape
            selection = call.selection()
            return await convertedwatch.serve(
                call.request, self.registry, selection, shape, options
            )
        return await watching.serve(
            call.request,
            self.registry,
            call.selection(),
            call.shape,
            options,
            {},
        )

    def create(self, call: Call) -> web.Response:
        shape = call.shape
        info = call.info
        obj, findings = decode_strictly(call.body, call.content_type)
        options = call.write_options(findings)
        result = self.registry.create(call.served, info.namespace, obj, options)
        return self._answer(call, result, shape)

    def update(self, call: Call) -> web.Response:
        shape = call.shape
        info = call.info
        served = call.served
        obj, findings = decode_strictly(call.body, call.content_type)
        options = call.write_options(findings)
        if info.subresource == "scale":
            return self._scaled(call, lambda scale: obj, options, call.other_shape)
        strategy = _STRATEGIES.get(info.subresource, "main")
        if info.subresource == "finalize":
            self.registry.decoding.check_types(served, obj)
        transform = _finalized(obj) if info.subresource == "finalize" else (lambda old: obj)
        unconditional = served.spec.unconditional_update and not served.custom
        result = self.registry.update(
            served,
            info.namespace,
            info.name,
            transform,
            options,
            strategy,
            unconditional=unconditional,
            subresource=info.subresource,
        )
        return self._answer(call, result, shape)

    def patch(self, call: Call) -> web.Response:
        shape = call.shape
        info = call.info
        served = call.served
        options = call.write_options()
        if call.media_type == APPLY_PATCH:
            patch, findings = decode_yaml_strictly(call.body)
            options = replace(options, findings=_of_yaml_strict(findings, options))
            result = apply_patch(
                self.registry,
                served,
                info.namespace,
                info.name,
                patch,
                options,
                info.subresource,
                self.list_keys,
            )
            return self._answer(call, result, shape)
        transform, findings = patching.transform(served, call.media_type, call.body, self.merge_key)
        shown = patching.shown_as(call.media_type, call.body)
        options = replace(options, findings=findings, patch_text=shown)
        if info.subresource == "scale":
            return self._scaled(call, transform, options, call.other_shape)
        strategy = _STRATEGIES.get(info.subresource, "main")
        result = self.registry.update(
            served,
            info.namespace,
            info.name,
            transform,
            options,
            strategy,
            subresource=info.subresource,
        )
        return self._answer(call, result, shape)

    def delete(self, call: Call) -> web.Response:
        shape = call.shape
        info = call.info
        options = self._delete_options(call)
        result = deletion.delete(self.registry, call.served, info.namespace, info.name, options)
        return self._answer(call, result, shape)

    def delete_collection(self, call: Call) -> web.Response:
        shape = call.shape
        deleted = deletion.delete_collection(
            self.registry,
            call.selection(),
            self._delete_options(call),
        )
        metadata = {"resourceVersion": str(self.registry.store.revision)}
        return self._list(call, deleted, metadata, shape)

    def _delete_options(self, call: Call) -> deletion.DeleteOptions:
        body = decode_object(call.body, call.content_type) if call.body.strip() else {}
        self.registry.decoding.typed(body, "", "v1", "DeleteOptions")
        return deletion.DeleteOptions.parse(body, dict(call.query), call.user)

    def scale(self, call: Call) -> web.Response:
        shape = call.other_shape
        stored = self.registry.get(call.served, call.info.namespace, call.info.name)
        shown = self.registry.shown(call.served, stored)
        return _respond(orjson.dumps(subresources.scale_of(call.served, shown)), shape)

    def _scaled(
        self,
        call: Call,
        transform: Transform,
        options: WriteOptions,
        shape: Representation,
    ) -> web.Response:
        served = call.served
        info = call.info

        def rescaled(obj: KubeObject) -> KubeObject:
            scale = self.registry.decoding.typed(
                transform(subresources.scale_of(served, obj)),
                "autoscaling",
                "v1",
                "Scale",
            )
            before = subresources.scale_of(served, obj)
            warnings[:] = self.registry.admit_body(
                call.target("UPDATE", options), scale, before, _SCALE
            )
            return subresources.set_scale(served, obj, scale)

        warnings: list[str] = []
        result = self.registry.update(
            served, info.namespace, info.name, rescaled, options, subresource="scale", admitted=True
        )
        body = orjson.dumps(subresources.scale_of(served, result.obj))
        return _respond(body, shape, warnings=(*result.warnings, *warnings))

    def create_subresource(self, call: Call) -> web.Response:
        """POST of a binding, an eviction or a token request."""
        shape = call.other_shape
        info = call.info
        served = call.served
        body = decode_object(call.body, call.content_type)
        options = call.write_options()
        if kind := _SUBRESOURCE_KINDS.get(info.subresource):
            self.registry.decoding.typed(body, *kind)
        warnings = self.registry.admit_body(call.target("CREATE", options), body, {}, kind)
        match served.storage, info.subresource:
            case "pods", "binding":
                result = subresources.bind(
                    self.registry,
                    served,
                    info.namespace,
                    info.name,
                    body,
                    options,
                )
            case "pods", "eviction":
                result = eviction.evict(
                    self.registry,
                    served,
                    info.namespace,
                    info.name,
                    body,
                    options,
                )
            case "serviceaccounts", "token":
                result = subresources.issue_token(
                    self.registry,
                    self.tokens,
                    info.namespace,
                    info.name,
                    body,
                )
            case _:
                raise status.no_such_path()
        return _respond(result.body, shape, result.code, warnings)

    def _answer(self, call: Call, result: Result, shape: Representation) -> web.Response:
        body = result.body
        if shape.kind and result.obj.get("kind") != "Status":
            body = _shaped(call.served, orjson.loads(body), shape, call.query)
        return _respond(body, shape, result.code, result.warnings)


def _of_yaml_strict(findings: tuple[str, ...], options: WriteOptions) -> tuple[str, ...]:
    """Raises 400 for a configuration with repeated keys where fieldValidation is Strict."""
    if findings and options.field_validation == "Strict":
        text = f"error converting YAML to JSON: {findings[0]}"
        raise status.bad_request(f"error strict decoding YAML: {text}")
    return findings


def _finalized(body: KubeObject) -> Callable[[KubeObject], KubeObject]:
    """PUT of namespaces/NAME/finalize: changes only spec.finalizers."""

    def transform(old: KubeObject) -> KubeObject:
        old.setdefault("spec", {})["finalizers"] = (body.get("spec") or {}).get("finalizers") or []
        if version := (body.get("metadata") or {}).get("resourceVersion"):
            old["metadata"]["resourceVersion"] = version
        return old

    return transform


def _shaped(
    served: Served,
    obj: KubeObject,
    shape: Representation,
    query: Mapping[str, str],
) -> bytes:
    if shape.kind == "Table":
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        include = query.get("includeObject") or "Metadata"
        return orjson.dumps(tables.table(served, [obj], metadata, shape.version, include))
    return orjson.dumps(tables.partial_metadata(obj, shape.version))


def _list_body(
    registry: Registry,
    served: Served,
    items: list[Stored],
    metadata: dict[str, Any],
    shape: Representation,
    query: Mapping[str, str],
) -> bytes:
    if not shape.kind:
        bodies = registry.bodies(served, items)
        head = orjson.dumps(
            {"kind": f"{served.kind}List", "apiVersion": served.api_version, "metadata": metadata},
        )
        return b'%b,"items":[%b]}' % (head[:-1], b",".join(bodies))
    objects = [registry.shown(served, stored) for stored in items]
    if shape.kind == "Table":
        include = query.get("includeObject") or "Metadata"
        return orjson.dumps(tables.table(served, objects, metadata, shape.version, include))
    return orjson.dumps(
        {
            "kind": "PartialObjectMetadataList",
            "apiVersion": f"meta.k8s.io/{shape.version}",
            "metadata": metadata,
            "items": [tables.partial_metadata(obj, shape.version) for obj in objects],
        }
    )


def _protobuf_list(
    registry: Registry, served: Served, items: list[Stored], metadata: dict[str, Any]
) -> bytes:
    from kubewire.components.apiserver.http import protobuf_writer

    # A message is kept beside the watch's frames, since every informer lists the same objects.
    cache = ("message", served.api_version)
    contents = []
    for item in items:
        if (content := item.frames.get(cache)) is None:
            content = item.frames[cache] = protobuf_writer.content(registry.shown(served, item))
        contents.append(content)
    kind = f"{served.kind}List"
    return protobuf_writer.encode_list(served.api_version, kind, metadata, contents)


def _respond(
    body: bytes,
    shape: Representation,
    code: int = 200,
    warnings: tuple[str, ...] = (),
) -> web.Response:
    response = web.Response(
        body=encode(body, shape),
        status=code,
        headers={"Content-Type": shape.content_type},
    )
    for header in warning_headers(warnings) if warnings else ():
        response.headers.add("Warning", header)
    return response


def _continue_token(revision: int, last: Stored) -> str:
    token = {
        "v": "meta.k8s.io/v1",
        "rv": revision,
        "start": f"{last.key.namespace}/{last.key.name}",
    }
    return base64.urlsafe_b64encode(orjson.dumps(token)).rstrip(b"=").decode()


def _parse_continue(token: str) -> tuple[int, tuple[str, str]]:
    try:
        decoded = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = decoded["start"].partition("/")
        return int(decoded["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise status.bad_request(
            "invalid continue token: continue key is not valid: illegal base64 or encoding"
        ) from error
