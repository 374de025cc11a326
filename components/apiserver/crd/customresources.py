"""Serves the resources that CustomResourceDefinitions define, and maintains the definitions'
status
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).

Versions are converted by the strategy None, which changes only apiVersion, or by a webhook
(conversion.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from kubewire.components.apiserver import jsonpath
from kubewire.components.apiserver.crd import structural
from kubewire.components.apiserver.kinds.cluster.customresourcedefinition import CLEANUP
from kubewire.components.apiserver.kinds.duration import human_duration
from kubewire.components.apiserver.kinds.spec import (
    NAME_COLUMNS,
    Column,
    FieldError,
    KindSpec,
    ScalePaths,
)
from kubewire.components.apiserver.registry import deletion, metadata, tables
from kubewire.components.apiserver.registry.admission.webhooks.client import WebhookClient
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.registry import Registry, is_finished
from kubewire.components.apiserver.status import StatusError
from kubewire.components.apiserver.store import Event, Stored
from kubewire.components.kubeapi.resources import KubeObject, Resource

log = logging.getLogger(__name__)

STORAGE = "customresourcedefinitions.apiextensions.k8s.io"
#: How many objects of a deleted definition are deleted in one turn of the event loop.
_DELETIONS_AT_ONCE = 50


#: Converts objects to an apiVersion.
Convert = Callable[[Sequence[KubeObject], str], list[KubeObject]]


def served_versions(crd: KubeObject, convert: Convert | None = None) -> list[Served]:
    """Returns a Served for each served version of an accepted definition.

    convert asks the webhook of the definition; without it only the apiVersion changes.
    """
    versions = crd["spec"]["versions"]
    storage = next(version["name"] for version in versions if version.get("storage"))
    return [
        _served(crd, version, storage, convert) for version in versions if version.get("served")
    ]


def _served(
    crd: KubeObject, version: dict[str, Any], storage: str, convert: Convert | None
) -> Served:
    spec = crd["spec"]
    names = crd["spec"]["names"]
    group = spec["group"]
    resource: Resource[KubeObject] = Resource(
        group,
        version["name"],
        names["plural"],
        names["kind"],
        spec.get("scope") == "Namespaced",
    )
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    preserve = bool(spec.get("preserveUnknownFields"))
    subresources = version.get("subresources") or {}
    selectable = [field["jsonPath"] for field in version.get("selectableFields") or []]
    rules = _Rules(schema)
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
        validate_create=rules.of_new,
        validate_update=rules.of_change,
        validate_status_update=rules.of_change,
        columns=_columns(version),
        row=partial(_row, columns=version.get("additionalPrinterColumns") or []),
        selectable_fields=partial(_selectable, paths=selectable),
        scale=_scale_paths(subresources.get("scale")),
    )
    return Served(
        kind,
        storage_version=f"{group}/{storage}",
        custom=True,
        to_storage=partial(_at_version, api_version=f"{group}/{storage}", convert=convert),
        from_storage=partial(_at_version, api_version=resource.api_version, convert=convert),
        converts=None if convert is None else partial(_all_at, resource.api_version, convert),
        prune=(lambda obj: []) if preserve else partial(_prune, schema=schema),
        schema_errors=partial(_validate, schema=schema),
        skipped_rules=rules.skipped,
        list_keys=partial(structural.list_keys, schema),
        deprecation=_deprecation(resource, version),
        # The definition's revision: what was stored later has the defaults of its schema.
        defaults_since=int(crd["metadata"].get("resourceVersion") or 0),
    )


def _deprecation(resource: Resource[Any], version: dict[str, Any]) -> str:
    if not version.get("deprecated"):
        return ""
    default = f"{resource.api_version} {resource.kind} is deprecated"
    return version.get("deprecationWarning") or default


def _at_version(obj: KubeObject, api_version: str, convert: Convert | None) -> KubeObject:
    if convert is None or obj.get("apiVersion") == api_version:
        return obj | {"apiVersion": api_version}
    return convert([obj], api_version)[0]


def _all_at(api_version: str, convert: Convert, objects: Sequence[KubeObject]) -> list[KubeObject]:
    return convert(objects, api_version)


def _default(obj: KubeObject, schema: structural.Schema) -> None:
    structural.default(obj, schema)


def _prune(obj: KubeObject, schema: structural.Schema) -> list[str]:
    return structural.prune(obj, schema)


def _validate(obj: KubeObject, schema: structural.Schema) -> list[FieldError]:
    body = {key: value for key, value in obj.items() if key != "metadata"}
    return structural.validate(body, _but_metadata(schema))


class _Rules:
    """The rules of a version; nothing of CEL is loaded for a schema without rules."""

    def __init__(self, schema: structural.Schema) -> None:
        from kubewire.components.apiserver.crd import validationrules

        self._rules = validationrules
        self._root = validationrules.tree(schema)

    @property
    def skipped(self) -> tuple[FieldError, ...]:
        return () if self._root is None else (self._rules.SKIPPED,)

    def of_new(self, obj: KubeObject) -> list[FieldError]:
        return [] if self._root is None else self._rules.errors(self._root, obj, None)

    def of_change(self, new: KubeObject, old: KubeObject) -> list[FieldError]:
        return [] if self._root is None else self._rules.errors(self._root, new, old)


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
    """Keeps everything but the status as it was, metadata included (apiextensions'
    statusStrategy).
    """
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
            item["name"],
            item.get("type", "string"),
            item.get("format", ""),
            item.get("description", ""),
            item.get("priority", 0),
        )
        for item in extra
    ]
    return (NAME_COLUMNS[0], *columns)


def _row(obj: KubeObject, now: datetime, columns: list[dict[str, Any]]) -> list[Any]:
    name = obj["metadata"]["name"]
    if not columns:
        return [name, tables.age(obj, now)]
    return [name, *(_cell(obj, now, column) for column in columns)]


def _cell(obj: KubeObject, now: datetime, column: dict[str, Any]) -> Any:
    values = jsonpath.find(obj, column["jsonPath"])
    if not values:
        return None
    if column.get("type") == "date":
        try:
            moment = datetime.fromisoformat(str(values[0]))
            return human_duration((now - moment).total_seconds())
        except (ValueError, TypeError):
            return "<invalid>"
    if column.get("type") == "string" and not isinstance(values[0], str):
        return orjson.dumps(values[0]).decode()
    return values[0]


def _selectable(obj: KubeObject, paths: list[str]) -> dict[str, str]:
    fields = {}
    for path in paths:
        values = jsonpath.find(obj, path)
        value = values[0] if values else ""
        fields[path.lstrip(".")] = str(value).lower() if isinstance(value, bool) else str(value)
    return fields


def _scale_paths(scale: dict[str, Any] | None) -> ScalePaths | None:
    if scale is None:
        return None
    selector = scale.get("labelSelectorPath", "")
    return ScalePaths(scale["specReplicasPath"], scale["statusReplicasPath"], selector)


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
    """The definition with acceptedNames, storedVersions and its conditions.

    conflict says why the names are not accepted; it is empty when they are.
    """
    # Only the changed parts are copied, because a schema may have thousands of values.
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
    versions = result["spec"]["versions"]
    storage = next((item["name"] for item in versions if item.get("storage")), None)
    stored = state.get("storedVersions") or []
    state["storedVersions"] = stored if storage in stored or storage is None else [*stored, storage]
    names_accepted = _condition("NamesAccepted", accepted, *_NAMES[accepted])
    if conflict:
        names_accepted["message"] = conflict
    wanted = [names_accepted, _condition("Established", accepted, *_ESTABLISHED[accepted])]
    before = state.get("conditions") or []
    state["conditions"] = [
        *(_kept(item, before) for item in wanted),
        *(item for item in before if item.get("type") not in ("NamesAccepted", "Established")),
    ]
    return result


def _kept(wanted: dict[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    for item in before:
        if item.get("type") == wanted["type"] and item.get("status") == wanted["status"]:
            return item
    return wanted


def is_established(crd: KubeObject) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    established = (item for item in conditions if item.get("type") == "Established")
    return any(item.get("status") == "True" for item in established)


def _group_kind(crd: KubeObject) -> tuple[str, str]:
    return crd["spec"]["group"], crd["spec"]["names"]["kind"]


@dataclass
class Definitions:
    """Follows the stored definitions.

    It accepts their names, serves their versions, and deletes the objects of deleted definitions.
    """

    registry: Registry
    catalog: Catalog
    client: WebhookClient | None = None
    _due: bool = field(default=False, init=False)
    _generations: tuple[tuple[str, int], ...] = field(default=(), init=False)
    #: The generation and the served versions of each definition by uid. Every change reads all
    #: definitions, of which there may be hundreds.
    _served: dict[str, tuple[int, list[Served]]] = field(default_factory=dict, init=False)

    def start(self) -> None:
        """Serves the stored definitions and follows their changes."""
        self.reconcile()
        self.registry.store.subscribe(STORAGE, self._on_event)

    def established(self) -> list[KubeObject]:
        definitions = [stored.obj for stored in self.registry.store.items(STORAGE)]
        return [crd for crd in definitions if is_established(crd)]

    def reconcile(self) -> None:
        """Brings every definition's status and the catalog up to date."""
        kinds = {_group_kind(crd): crd["metadata"]["name"] for crd in reversed(self.established())}
        for stored in self.registry.store.items(STORAGE):
            try:
                self._sync(stored, kinds)
            except (StatusError, KeyError, TypeError, ValueError):
                log.exception("cannot process CustomResourceDefinition %s", stored.key.name)
        established = self.established()
        metadata = [crd["metadata"] for crd in established]
        generations = tuple((item["uid"], item.get("generation", 0)) for item in metadata)
        if generations == self._generations:
            return
        self._generations = generations
        known = self._served
        self._served = {}
        for crd, (uid, generation) in zip(established, generations, strict=True):
            before = known.get(uid)
            if before is not None and before[0] == generation:
                self._served[uid] = before
            else:
                self._served[uid] = (generation, served_versions(crd, self._conversion(crd)))
        self.catalog.replace_custom(item for _, served in self._served.values() for item in served)

    def _conversion(self, crd: KubeObject) -> Convert | None:
        spec = crd["spec"].get("conversion") or {}
        if self.client is None or spec.get("strategy") != "Webhook":
            return None
        from kubewire.components.apiserver.crd.conversion import WebhookConversion

        return WebhookConversion(spec, self.client, self.registry.store.owner).convert

    def _on_event(self, event: Event) -> None:
        self._ask()

    def _ask(self) -> None:
        """Schedules a reconciliation."""
        if self._due:
            return
        self._due = True
        # Reconciling waits until the write that caused the event is complete, but happens before
        # the next request is read.
        asyncio.get_running_loop().call_soon(self._reconcile_due)

    def _reconcile_due(self) -> None:
        self._due = False
        self.reconcile()

    def _sync(self, stored: Stored, kinds: dict[tuple[str, str], str]) -> None:
        """Brings one definition up to date.

        kinds maps the groups and kinds of established definitions to their names; this one is
        added.
        """
        crd = stored.obj
        if crd["metadata"].get("deletionTimestamp"):
            self._clean_up(stored)
            return
        conflict = self._name_conflict(crd, kinds)
        if not conflict:
            kinds[_group_kind(crd)] = crd["metadata"]["name"]
        wanted = with_conditions(crd, conflict)
        if wanted != crd:
            self.registry.store.update(stored.key, wanted, stored.revision)

    def _name_conflict(self, crd: KubeObject, kinds: dict[tuple[str, str], str]) -> str:
        group = crd["spec"]["group"]
        names = crd["spec"]["names"]
        for builtin in self.catalog.builtin.values():
            if builtin.group == group and builtin.plural == names["plural"]:
                return f'"{names["plural"]}" is already in use'
        if kinds.get((group, names["kind"]), crd["metadata"]["name"]) != crd["metadata"]["name"]:
            return f'"{names["kind"]}" is already in use'
        return ""

    def _clean_up(self, stored: Stored) -> None:
        """Deletes the definition's objects, and the definition once none of them is left."""
        crd = stored.obj
        served = next(iter(served_versions(crd)), None)
        if served is not None:
            living = [
                item
                for item in self.registry.store.items(served.storage)
                if not item.obj["metadata"].get("deletionTimestamp")
            ]
            for item in living[:_DELETIONS_AT_ONCE]:
                key = item.key
                options = deletion.DeleteOptions()
                deletion.delete(self.registry, served, key.namespace, key.name, options)
            if len(living) > _DELETIONS_AT_ONCE:
                self._ask()
                return
            if self.registry.store.count(served.storage):
                self._follow(served.storage)
                return
        finalizers = [name for name in crd["metadata"].get("finalizers") or [] if name != CLEANUP]
        without = {**crd, "metadata": crd["metadata"] | {"finalizers": finalizers}}
        metadata.drop_empty(without["metadata"])
        if is_finished(without):
            self.registry.store.delete(stored.key, without, stored.revision)
        elif without != crd:
            self.registry.store.update(stored.key, without, stored.revision)

    def _follow(self, storage: str) -> None:
        """Waits for the last object, because objects with finalizers are removed later."""
        stop: list[Callable[[], None]] = []

        def gone(event: Event) -> None:
            if event.type == "DELETED" and not self.registry.store.count(storage):
                stop[0]()
                self._on_event(event)

        stop.append(self.registry.store.subscribe(storage, gone))
