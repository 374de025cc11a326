"""The generic registry: reads and writes of any kind (apiserver/pkg/registry/generic).

Every kind is stored by the same code, so that each write obeys the API conventions whatever the
kind is
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md).
What is particular to a kind comes from its KindSpec. A write runs through these steps:

1. decode: the kind matches, values have the right types, unknown fields are dropped or reported.
2. metadata: the server sets uid, creationTimestamp and generation, and keeps what clients cannot
   change.
3. strategy: the kind's prepare and default functions. Spec and status have different writers, so
   an update of the object keeps the old status, and an update of the status keeps everything else.
4. admission: changes that involve other objects. At an update they come before the strategy's
   prepare function.
5. validation: all errors of all fields are collected into one 422.
6. admission again: checks that involve other objects, of the object as it will be stored.
7. store: one atomic write with the next resourceVersion.

Concurrent writers are kept apart by optimistic concurrency, not by locks. An object that carries a
resourceVersion is written only if that is still the current one; otherwise the client gets 409 and
repeats its read, change and write. A write that changes nothing is not stored, so that it wakes no
watcher.

Everything is synchronous. In the event loop's thread a write is atomic, because nothing else runs
between reading the old object and storing the new one. In a worker (owner.py) another write may
come in between. The store then refuses this one with RevisionMismatch, and the caller repeats it.
deletion.py has the deletion.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.kinds.warnings.table import on_create, on_update
from kubewire.components.apiserver.registry import metadata as object_meta
from kubewire.components.apiserver.registry.admission.chain import Admission
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.decoding import Decoding, Undecodable, handled_as
from kubewire.components.apiserver.registry.fieldownership import OwnershipTracker, drop_unreadable
from kubewire.components.apiserver.registry.requests import Result, Target, WriteOptions
from kubewire.components.apiserver.store import Key, KeyExists, Store, Stored
from kubewire.components.kubeapi.resources import KubeObject

log = logging.getLogger(__name__)

#: "raw" changes what the caller says and nothing else; with "counted" it counts as a generation.
Strategy = Literal["main", "status", "approval", "raw", "counted"]
_RAW = ("raw", "counted")
#: Makes the new object from a copy of the old one, which it may change.
Transform = Callable[[KubeObject], KubeObject]


@dataclass
class Registry:
    """Reads and writes the objects of all resources."""

    store: Store
    catalog: Catalog
    admission: Admission
    decoding: Decoding
    ownership: OwnershipTracker
    _generate_attempts: int = field(default=8, init=False)

    def get(self, served: Served, namespace: str, name: str) -> Stored:
        """Returns the object; raises 404."""
        stored = self.store.get(Key(served.storage, namespace if served.namespaced else "", name))
        if stored is None:
            raise status.not_found(served.group, served.plural, name)
        return stored

    def body(self, served: Served, stored: Stored) -> bytes:
        """The JSON of an answer."""
        return self.bodies(served, (stored,))[0]

    def bodies(self, served: Served, items: Sequence[Stored]) -> list[bytes]:
        """The JSON of each object of an answer."""
        if served.converts is not None:
            return self._asked_for(served, items, served.converts)
        return [
            stored.body
            if self._is_shown_as_stored(served, stored)
            else orjson.dumps(self._converted(served, stored))
            for stored in items
        ]

    def _asked_for(
        self,
        served: Served,
        items: Sequence[Stored],
        convert: Callable[[Sequence[KubeObject]], list[KubeObject]],
    ) -> list[bytes]:
        """Has a webhook convert what is not converted yet.

        The result is kept until the object changes, because a revision never does.
        """
        place = (str(served.defaults_since), served.api_version)
        found = [
            stored.body
            if self._is_shown_as_stored(served, stored)
            else stored.frames.get(place, b"")
            for stored in items
        ]
        missing = [index for index, body in enumerate(found) if not body]
        converted = convert([items[index].copy() for index in missing])
        for index, obj in zip(missing, converted, strict=True):
            served.spec.default(obj)
            found[index] = items[index].frames[place] = orjson.dumps(obj)
        return found

    def shown(self, served: Served, stored: Stored) -> KubeObject:
        """The object of an answer, which must not be changed."""
        if self._is_shown_as_stored(served, stored):
            return stored.obj
        if served.converts is None:
            return self._converted(served, stored)
        shown: KubeObject = orjson.loads(self.body(served, stored))
        return shown

    def _converted(self, served: Served, stored: Stored) -> KubeObject:
        obj = served.from_storage(stored.copy())
        if served.custom:
            # Defaults apply to reads, too: the schema may have got them later.
            served.spec.default(obj)
        return obj

    def _is_shown_as_stored(self, served: Served, stored: Stored) -> bool:
        return served.is_shown(stored.obj) and stored.revision >= served.defaults_since

    def result(
        self,
        served: Served,
        stored: Stored,
        code: int = 200,
        warnings: tuple[str, ...] = (),
    ) -> Result:
        return Result(stored.obj, self.body(served, stored), code, warnings)

    def create(
        self,
        served: Served,
        namespace: str,
        obj: KubeObject,
        options: WriteOptions,
    ) -> Result:
        """Stores a new object and takes it over; raises StatusError."""
        warnings = self.decoding.decode(served, obj, options)
        self._check_address(served, obj, namespace, "")
        drop_unreadable(obj["metadata"])
        versioned = obj["metadata"].get("resourceVersion") not in (None, "", "0")
        obj = self._worked_on(served, obj)
        generates = not obj["metadata"].get("name") and bool(obj["metadata"].get("generateName"))
        for _ in range(self._generate_attempts if generates else 1):
            if generates:
                obj["metadata"].pop("name", None)
            object_meta.prepare_create(obj["metadata"], served.namespaced, namespace)
            if self.store.get(_key(served, obj)) is None:
                break
        self._prepare(served, lambda: served.spec.prepare_create(obj))
        self._prepare(served, lambda: served.spec.default(obj))
        object_meta.set_generation(obj, None, served.counts_generation)
        attributes = _attributes(served, "CREATE", obj, {}, options)
        attributes.generated_name = generates
        self.admission.admit(attributes)
        self._complete(served, obj)
        with self.admission.addresses(attributes):
            self._validate(served, obj, lambda: served.spec.validate_create(obj))
            warnings += on_create(served.storage, obj)
            self.admission.validate(attributes)
            warnings += tuple(attributes.warnings)
            if self.store.get(_key(served, obj)) is not None:
                raise status.already_exists(served.group, served.plural, obj["metadata"]["name"])
            if options.dry_run:
                return self._unstored(served, obj, 201, warnings)
            if versioned:
                raise status.version_on_create()
            try:
                key = _key(served, obj)
                stored = self.store.create(key, _ordered(self._stored_form(served, obj)))
            except KeyExists as error:  # It was created while a worker checked this one.
                raise status.already_exists(
                    served.group,
                    served.plural,
                    obj["metadata"]["name"],
                ) from error
        return self.result(served, stored, 201, warnings)

    def update(
        self,
        served: Served,
        namespace: str,
        name: str,
        transform: Transform,
        options: WriteOptions,
        strategy: Strategy = "main",
        *,
        unconditional: bool = True,
        track: bool = True,
        subresource: str = "",
        admitted: bool = False,
    ) -> Result:
        """Replaces an object by transform(a copy of it); raises StatusError.

        subresource is what the request names, besides "status", which the strategy says. The
        resourceVersion of the new object is a precondition. Without one the write is
        unconditional, which some kinds do not allow on PUT (unconditional=False).
        admitted says that the caller has taken the body of the request through admission.
        """
        current = self.get(served, namespace, name)
        old = current.copy()
        if served.custom:
            old = served.from_storage(old)
        new = transform(served.from_storage(current.copy()))
        try:
            warnings = self.decoding.decode(served, new, options)
        except Undecodable as error:
            if options.patch_text is None:
                raise
            patched = transform(served.from_storage(current.copy()))
            field_error = FieldError("Invalid", "patch", options.patch_text(patched), error.text)
            raise status.invalid("", "", "", [field_error]) from error
        self._check_address(served, new, namespace, name)
        self._check_preconditions(served, new, current, unconditional)
        new = self._worked_on(served, new)
        subresource = "status" if strategy == "status" else subresource
        attributes = _attributes(served, "UPDATE", new, old, options, subresource)
        self._apply_strategy(attributes, strategy, admitted)
        if track:
            self.ownership.on_update(served, new, old, options.field_manager, subresource)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        is_current = not served.custom or current.obj["apiVersion"] == served.storage_version
        if new == old and is_current:
            return self.result(served, current, 200, warnings)
        with self.admission.addresses(attributes):
            self._validate_change(served, new, old, strategy)
            if strategy == "main":
                warnings += on_update(served.storage, new, old)
            if not admitted:
                self.admission.validate(attributes)
            warnings += tuple(attributes.warnings)
            if new == old and is_current:
                # Admission gave it what it has already, such as the ClusterIP of a Service.
                return self.result(served, current, 200, warnings)
            if options.dry_run:
                return self._unstored(served, new, 200, warnings)
            stored = self._store(current, self._stored_form(served, new))
        return self.result(served, stored, 200, warnings)

    def _worked_on(self, served: Served, obj: KubeObject) -> KubeObject:
        """The form in which a write is prepared and validated.

        The rules of a built-in kind are those of the stored form, and each version of a custom
        resource has its own.
        """
        return obj if served.custom else served.to_storage(obj)

    def _stored_form(self, served: Served, obj: KubeObject) -> KubeObject:
        return served.to_storage(obj) if served.custom else obj

    def admit_body(
        self,
        target: Target,
        body: KubeObject,
        old: KubeObject,
        kind: tuple[str, str, str] | None,
    ) -> tuple[str, ...]:
        """Takes the body of a subresource, of another kind, through admission.

        Returns warnings. Admission may change the body. Raises StatusError.
        """
        options = target.options
        attributes = Attributes(
            target.served,
            target.operation,
            target.namespace if target.served.namespaced else "",
            target.name,
            body,
            old,
            target.subresource,
            options.dry_run,
            options.user,
            options=options.as_json() if target.operation != "CONNECT" else {},
            body_kind=kind,
        )
        self.admission.admit(attributes)
        self.admission.validate(attributes)
        return tuple(attributes.warnings)

    def _store(self, current: Stored, new: KubeObject) -> Stored:
        # An object being deleted goes with its last finalizer (deleteWithoutFinalizers of
        # registry/generic).
        if is_finished(new):
            return self.store.delete(current.key, new, current.revision)
        return self.store.update(current.key, _ordered(new), current.revision)

    def _apply_strategy(self, attributes: Attributes, strategy: Strategy, admitted: bool) -> None:
        served, new, old = attributes.served, attributes.obj, attributes.old
        object_meta.prepare_update(new["metadata"], old["metadata"])
        admit = self.admission.admit
        if strategy in _RAW:
            if strategy == "counted":
                object_meta.set_generation(new, old, served.counts_generation)
            if not admitted:
                admit(attributes)
            self._complete(served, new)
            return
        spec = served.spec
        prepare = {
            "main": spec.prepare_update,
            "status": spec.prepare_status_update,
            "approval": spec.prepare_approval,
        }[strategy]
        self._prepare(served, lambda: spec.default(new))
        if not admitted:
            admit(attributes)
        self._complete(served, new)
        self._prepare(served, lambda: prepare(new, old))
        if strategy == "main":
            object_meta.set_generation(new, old, served.counts_generation)
        elif "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"]

    def _validate_change(
        self,
        served: Served,
        new: KubeObject,
        old: KubeObject,
        strategy: Strategy,
    ) -> None:
        spec = served.spec
        if strategy not in _RAW:
            errors = object_meta.validate_update(new["metadata"], old["metadata"])
            if errors:
                raise status.invalid(served.group, served.kind, old["metadata"]["name"], errors)
        if strategy == "main":
            self._validate(served, new, lambda: spec.validate_update(new, old))
        elif strategy in ("status", "approval"):
            self._validate(served, new, lambda: spec.validate_status_update(new, old))

    def _check_preconditions(
        self,
        served: Served,
        new: KubeObject,
        current: Stored,
        unconditional: bool,
    ) -> None:
        metadata = new["metadata"]
        name = current.key.name
        version = metadata.get("resourceVersion") or ""
        if not version and not unconditional:
            error = FieldError(
                "Invalid",
                "metadata.resourceVersion",
                0,
                "must be specified for an update",
            )
            raise status.invalid(served.group, served.kind, name, [error])
        if version and version != str(current.revision):
            raise status.conflict(served.group, served.plural, name)
        uid = metadata.get("uid")
        if uid and uid != current.obj["metadata"]["uid"]:
            raise status.conflict(served.group, served.plural, name, uid_text(uid, current))

    def _check_address(self, served: Served, obj: KubeObject, namespace: str, name: str) -> None:
        metadata = obj["metadata"]
        if served.namespaced and metadata.get("namespace") not in (None, "", namespace):
            text = "the namespace of the provided object does not match the namespace"
            raise status.bad_request(f"{text} sent on the request")
        if not name:
            return
        if metadata.get("name") not in (None, "", name):
            text = f"the name of the object ({metadata['name']}) does not match the name"
            raise status.bad_request(f"{text} on the URL ({name})")
        metadata["name"] = name

    def _complete(self, served: Served, obj: KubeObject) -> None:
        """Adds what Go writes even when it is zero, so that an object has one form only."""
        group, _, version = served.storage_version.rpartition("/")
        self.decoding.types.complete(obj, group, version, served.kind)

    def _prepare(self, served: Served, step: Callable[[], None]) -> None:
        try:
            step()
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            log.info("cannot decode a %s", served.kind, exc_info=True)
            raise status.bad_request(f"{handled_as(served)}: {error}") from error

    def _validate(
        self,
        served: Served,
        obj: KubeObject,
        step: Callable[[], list[FieldError]],
    ) -> None:
        errors = object_meta.validate(obj["metadata"], served.storage)
        errors += served.schema_errors(obj)
        # A rule of a custom object may read any field, and so needs values of the right types.
        if served.custom and any(error.type in _HIDING_RULES for error in errors):
            errors += served.skipped_rules
        else:
            errors += step()
        if errors:
            raise status.invalid(served.group, served.kind, obj["metadata"].get("name", ""), errors)

    def _unstored(
        self,
        served: Served,
        obj: KubeObject,
        code: int,
        warnings: tuple[str, ...],
    ) -> Result:
        body = orjson.dumps(obj)
        shown = obj if served.is_shown(obj) else served.from_storage(orjson.loads(body))
        return Result(obj, orjson.dumps(_ordered(shown)), code, warnings)


def _attributes(
    served: Served,
    operation: Operation,
    obj: KubeObject,
    old: KubeObject,
    options: WriteOptions,
    subresource: str = "",
) -> Attributes:
    metadata = (old or obj)["metadata"]
    return Attributes(
        served,
        operation,
        metadata.get("namespace", "") if served.namespaced else "",
        metadata.get("name", ""),
        obj,
        old,
        subresource,
        options.dry_run,
        options.user,
        options=options.as_json(),
    )


#: Errors after which the rules of a custom object are not evaluated (hasBlockingErr).
_HIDING_RULES = frozenset({"NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid"})


def _key(served: Served, obj: KubeObject) -> Key:
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "") if served.namespaced else ""
    return Key(served.storage, namespace, metadata.get("name", ""))


def uid_text(uid: str, current: Stored) -> str:
    """storage.NewInvalidObjError's text for a failed UID precondition."""
    key = "/".join(part for part in current.key if part)
    return (
        f"StorageError: invalid object, Code: 4, Key: /registry/{key}, ResourceVersion: 0, "
        f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, "
        f"UID in object meta: {current.obj['metadata']['uid']}"
    )


def is_finished(obj: KubeObject) -> bool:
    """Whether the object is being deleted and no finalizer or grace holds it any longer."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


_FIRST = ("kind", "apiVersion", "metadata")


def _ordered(obj: KubeObject) -> KubeObject:
    return {key: obj[key] for key in _FIRST if key in obj} | obj
