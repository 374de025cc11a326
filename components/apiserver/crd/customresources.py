"""CustomResourceDefinitions: from a definition to the resources it serves, and the definition's own life
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).

Versions convert by strategy None: only apiVersion changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from kubewire.components.apiserver import jsonpath
from kubewire.components.apiserver.crd import structural
from kubewire.components.apiserver.kinds.spec import NAME_COLUMNS, Column, FieldError, KindSpec, ScalePaths
from kubewire.components.apiserver.registry import deletion, metadata, tables
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.registry import Registry, is_finished
from kubewire.components.apiserver.status import StatusError
from kubewire.components.apiserver.store import Event, Stored
from kubewire.components.kubeapi.resources import KubeObject, Resource

log = logging.getLogger(__name__)

STORAGE = "customresourcedefinitions.apiextensions.k8s.io"
#: Objects of a deleted definition that go in one turn of the event loop.
_DELETIONS_AT_ONCE = 50
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


# --- a definition's resources


def served_versions(crd: KubeObject) -> list[Served]:
    """One Served per served version of an accepted definition."""
    versions = crd["spec"]["versions"]
    storage = next(version["name"] for version in versions if version.get("storage"))
    return [_served(crd, version, storage) for version in versions if version.get("served")]


def _served(crd: KubeObject, version: dict[str, Any], storage: str) -> Served:
    spec, names = crd["spec"], crd["spec"]["names"]
    group = spec["group"]
    resource = Resource(group, version["name"], names["plural"], names["kind"], spec.get("scope") == "Namespaced")
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    preserve = bool(spec.get("preserveUnknownFields"))
    subresources = version.get("subresources") or {}
    kind = KindSpec(
        resource=resource,
        singular=names.get("singular") or names["kind"].lower(),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(name for name in ("scale", "status") if name in subresources),
        default=partial(_default, schema=schema),
        prepare_create=_without_status if "status" in subresources else _as_it_is,
        prepare_update=_with_status_of if "status" in subresources else _as_it_was,
        prepare_status_update=_only_status,
        columns=_columns(version),
        row=partial(_row, columns=version.get("additionalPrinterColumns") or []),
        selectable_fields=partial(
            _selectable, paths=[one["jsonPath"] for one in version.get("selectableFields") or []]
        ),
        scale=_scale_paths(subresources.get("scale")),
    )
    return Served(
        kind,
        storage_version=f"{group}/{storage}",
        custom=True,
        to_storage=partial(_at_version, api_version=f"{group}/{storage}"),
        from_storage=partial(_at_version, api_version=resource.api_version),
        prune=(lambda obj: []) if preserve else partial(_prune, schema=schema),
        schema_errors=partial(_validate, schema=schema),
        list_keys=partial(structural.list_keys, schema),
        deprecation=_deprecation(resource, version),
    )


def _deprecation(resource: Resource, version: dict[str, Any]) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{resource.api_version} {resource.kind} is deprecated"


def _at_version(obj: KubeObject, api_version: str) -> KubeObject:
    return obj | {"apiVersion": api_version}


def _default(obj: KubeObject, schema: structural.Schema) -> None:
    structural.default(obj, schema)


def _prune(obj: KubeObject, schema: structural.Schema) -> list[str]:
    return structural.prune(obj, schema)


def _validate(obj: KubeObject, schema: structural.Schema) -> list[FieldError]:
    return structural.validate({key: value for key, value in obj.items() if key != "metadata"}, _but_metadata(schema))


def _but_metadata(schema: structural.Schema) -> structural.Schema:
    required = [name for name in schema.get("required") or [] if name != "metadata"]
    return {**schema, "required": required}


def _as_it_is(obj: KubeObject) -> None:
    return None


def _as_it_was(new: KubeObject, old: KubeObject) -> None:
    return None


def _without_status(obj: KubeObject) -> None:
    obj.pop("status", None)


def _with_status_of(new: KubeObject, old: KubeObject) -> None:
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def _only_status(new: KubeObject, old: KubeObject) -> None:
    """All but the status is what it was, metadata too (apiextensions' statusStrategy)."""
    status = new.get("status")
    managed = new["metadata"].get("managedFields")
    new.clear()
    new.update({key: value for key, value in old.items() if key != "status"})
    new["metadata"] = dict(old["metadata"])
    if managed is not None:
        new["metadata"]["managedFields"] = managed
    if status is not None:
        new["status"] = status


def _columns(version: dict[str, Any]) -> tuple[Column, ...]:
    extra = version.get("additionalPrinterColumns") or []
    if not extra:
        return NAME_COLUMNS
    columns = [
        Column(
            one["name"],
            one.get("type", "string"),
            one.get("format", ""),
            one.get("description", ""),
            one.get("priority", 0),
        )
        for one in extra
    ]
    return (NAME_COLUMNS[0], *columns)


def _row(obj: KubeObject, now: datetime, columns: list[dict[str, Any]]) -> list[Any]:
    name = obj["metadata"]["name"]
    if not columns:
        return [name, tables.age(obj, now)]
    return [name, *(_cell(obj, now, column) for column in columns)]


def _cell(obj: KubeObject, now: datetime, column: dict[str, Any]) -> Any:
    found = jsonpath.find(obj, column["jsonPath"])
    if not found:
        return None
    if column.get("type") == "date":
        try:
            return tables.human_duration((now - datetime.fromisoformat(str(found[0]))).total_seconds())
        except (ValueError, TypeError):
            return "<invalid>"
    if column.get("type") == "string" and not isinstance(found[0], str):
        return orjson.dumps(found[0]).decode()
    return found[0]


def _selectable(obj: KubeObject, paths: list[str]) -> dict[str, str]:
    fields = {}
    for path in paths:
        found = jsonpath.find(obj, path)
        value = found[0] if found else ""
        fields[path.lstrip(".")] = str(value).lower() if isinstance(value, bool) else str(value)
    return fields


def _scale_paths(scale: dict[str, Any] | None) -> ScalePaths | None:
    if scale is None:
        return None
    return ScalePaths(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", ""))


# --- the definition's life


def _condition(kind: str, state: bool, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if state else "False",
        "lastTransitionTime": metadata.timestamp(),
        "reason": reason,
        "message": message,
    }


_NAMES = {True: ("NoConflicts", "no conflicts found"), False: ("Conflict", "")}
_ESTABLISHED = {
    True: ("InitialNamesAccepted", "the initial names have been accepted"),
    False: ("NotAccepted", "not all names are accepted"),
}


def with_conditions(crd: KubeObject, conflict: str) -> KubeObject:
    """The definition with acceptedNames, storedVersions and its conditions. conflict: why the names are refused."""
    # Only what is changed is copied: a schema may have many thousand values.
    result = {**crd, "metadata": dict(crd["metadata"]), "status": dict(crd.get("status") or {})}
    state = result["status"]
    names = result["spec"]["names"]
    accepted = not conflict
    if accepted:
        state["acceptedNames"] = {
            **names,
            "singular": names.get("singular") or names["kind"].lower(),
            "listKind": names.get("listKind") or f"{names['kind']}List",
        }
    storage = next((version["name"] for version in result["spec"]["versions"] if version.get("storage")), None)
    stored = state.get("storedVersions") or []
    state["storedVersions"] = stored if storage in stored or storage is None else [*stored, storage]
    wanted = [
        _condition("NamesAccepted", accepted, *_NAMES[accepted]) | ({"message": conflict} if conflict else {}),
        _condition("Established", accepted, *_ESTABLISHED[accepted]),
    ]
    state["conditions"] = [_kept(one, state.get("conditions") or []) for one in wanted] + [
        one for one in state.get("conditions") or [] if one.get("type") not in ("NamesAccepted", "Established")
    ]
    return result


def _kept(wanted: dict[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    for one in before:
        if one.get("type") == wanted["type"] and one.get("status") == wanted["status"]:
            return one
    return wanted


def is_established(crd: KubeObject) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Established" and one.get("status") == "True" for one in conditions)


def _group_kind(crd: KubeObject) -> tuple[str, str]:
    return crd["spec"]["group"], crd["spec"]["names"]["kind"]


@dataclass
class Definitions:
    """Follows the stored definitions: accepts names, serves versions, removes objects of deleted definitions."""

    registry: Registry
    catalog: Catalog
    _due: bool = field(default=False, init=False)
    _generations: tuple[tuple[str, int], ...] = field(default=(), init=False)
    #: By uid: the generation and what it serves. Each change looks at all definitions, which may be hundreds.
    _served: dict[str, tuple[int, list[Served]]] = field(default_factory=dict, init=False)

    def start(self) -> None:
        """Serves what is stored, and follows changes from now on."""
        self.reconcile()
        self.registry.store.subscribe(STORAGE, self._on_event)

    def established(self) -> list[KubeObject]:
        return [stored.obj for stored in self.registry.store.items(STORAGE) if is_established(stored.obj)]

    def reconcile(self) -> None:
        kinds = {_group_kind(crd): crd["metadata"]["name"] for crd in reversed(self.established())}
        for stored in self.registry.store.items(STORAGE):
            try:
                self._sync(stored, kinds)
            except (StatusError, KeyError, TypeError, ValueError):
                log.exception("CustomResourceDefinition %s", stored.key.name)
        established = self.established()
        generations = tuple((crd["metadata"]["uid"], crd["metadata"].get("generation", 0)) for crd in established)
        if generations == self._generations:
            return
        self._generations = generations
        known = self._served
        self._served = {}
        for crd, (uid, generation) in zip(established, generations, strict=True):
            before = known.get(uid)
            fresh = before is not None and before[0] == generation
            self._served[uid] = before if before is not None and fresh else (generation, served_versions(crd))
        self.catalog.replace_custom(one for _, served in self._served.values() for one in served)

    def _on_event(self, event: Event) -> None:
        self._ask()

    def _ask(self) -> None:
        if self._due:
            return
        self._due = True
        # Not inside the write that told us, yet before the next request is read.
        asyncio.get_running_loop().call_soon(self._reconcile_due)

    def _reconcile_due(self) -> None:
        self._due = False
        self.reconcile()

    def _sync(self, stored: Stored, kinds: dict[tuple[str, str], str]) -> None:
        """kinds: the names of the established definitions by group and kind; this one joins them."""
        crd = stored.obj
        if crd["metadata"].get("deletionTimestamp"):
            self._clean_up(stored)
            return
        conflict = self._name_conflict(crd, kinds)
        if not conflict:
            kinds[_group_kind(crd)] = crd["metadata"]["name"]
        wanted = with_conditions(crd, conflict)
        finalizers = wanted["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            wanted["metadata"]["finalizers"] = [*finalizers, FINALIZER]
        if wanted != crd:
            self.registry.store.update(stored.key, wanted, stored.revision)

    def _name_conflict(self, crd: KubeObject, kinds: dict[tuple[str, str], str]) -> str:
        group, names = crd["spec"]["group"], crd["spec"]["names"]
        for one in self.catalog.builtin.values():
            if one.group == group and one.plural == names["plural"]:
                return f'"{names["plural"]}" is already in use'
        if kinds.get((group, names["kind"]), crd["metadata"]["name"]) != crd["metadata"]["name"]:
            return f'"{names["kind"]}" is already in use'
        return ""

    def _clean_up(self, stored: Stored) -> None:
        """Deletes the objects; the definition goes when the last of them is gone."""
        crd = stored.obj
        served = next(iter(served_versions(crd)), None)
        if served is not None:
            living = [
                one
                for one in self.registry.store.items(served.storage)
                if not one.obj["metadata"].get("deletionTimestamp")
            ]
            for one in living[:_DELETIONS_AT_ONCE]:
                deletion.delete(self.registry, served, one.key.namespace, one.key.name, deletion.DeleteOptions())
            if len(living) > _DELETIONS_AT_ONCE:
                self._ask()
                return
            if self.registry.store.count(served.storage):
                self._follow(served.storage)
                return
        finalizers = [name for name in crd["metadata"].get("finalizers") or [] if name != FINALIZER]
        without = {**crd, "metadata": crd["metadata"] | {"finalizers": finalizers}}
        metadata.drop_empty(without["metadata"])
        if is_finished(without):
            self.registry.store.delete(stored.key, without, stored.revision)
        elif without != crd:
            self.registry.store.update(stored.key, without, stored.revision)

    def _follow(self, storage: str) -> None:
        # Objects with finalizers leave later; their going wakes us.
        stop: list[Callable[[], None]] = []

        def gone(event: Event) -> None:
            if event.type == "DELETED" and not self.registry.store.count(storage):
                stop[0]()
                self._on_event(event)

        stop.append(self.registry.store.subscribe(storage, gone))
