"""Deletion: grace, finalizers, propagation and preconditions (Store.Delete of registry/generic,
rest.BeforeDelete).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.query import integer
from kubewire.components.apiserver.registry.admission.plugin import Attributes
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.metadata import timestamp
from kubewire.components.apiserver.registry.registry import Registry, is_finished, uid_text
from kubewire.components.apiserver.registry.requests import Result, Selection
from kubewire.components.apiserver.store import RevisionMismatch, Stored
from kubewire.components.apiserver.users import SERVER, User
from kubewire.components.kubeapi.resources import KubeObject

#: The longest grace in seconds, a thousand years; a later date could not be represented.
_LONGEST_GRACE = 1000 * 365 * 86400
_ORPHAN = "orphan"
_FOREGROUND = "foregroundDeletion"
#: Resources whose DELETE answers with the object (ReturnDeletedObject of rest.RESTDeleteStrategy).
_RETURNED = frozenset(
    {"pods", "services", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims"},
)


@dataclass(frozen=True)
class DeleteOptions:
    """metav1.DeleteOptions."""

    grace_period_seconds: int | None = None
    propagation_policy: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False
    user: User = SERVER

    def as_json(self) -> KubeObject:
        """The options as webhooks and policies are shown them."""
        shown: KubeObject = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        if self.grace_period_seconds is not None:
            shown["gracePeriodSeconds"] = self.grace_period_seconds
        conditions = {"uid": self.uid, "resourceVersion": self.resource_version}
        if conditions := {key: value for key, value in conditions.items() if value}:
            shown["preconditions"] = conditions
        if self.propagation_policy:
            shown["propagationPolicy"] = self.propagation_policy
        if self.dry_run:
            shown["dryRun"] = ["All"]
        return shown

    @classmethod
    def parse(cls, body: KubeObject, query: dict[str, str], user: User = SERVER) -> DeleteOptions:
        """Reads the options from the body, or from the query without one; raises 400 and 422."""
        grace = body.get("gracePeriodSeconds")
        if grace is None and query.get("gracePeriodSeconds"):
            grace = integer(query, "gracePeriodSeconds")
        policy = body.get("propagationPolicy") or query.get("propagationPolicy", "")
        orphan = body.get(
            "orphanDependents",
            {"true": True, "false": False}.get(query.get("orphanDependents", "")),
        )
        asked = body.get("dryRun") or ([query["dryRun"]] if query.get("dryRun") else [])
        errors = _policy_errors(policy, orphan)
        if any(item != "All" for item in asked):
            errors.append(FieldError("NotSupported", "dryRun", asked, 'supported values: "All"'))
        if errors:
            raise status.invalid("meta.k8s.io", "DeleteOptions", "", errors)
        if not policy and orphan is not None:
            policy = "Orphan" if orphan else "Background"
        conditions = body.get("preconditions") or {}
        return cls(
            int(grace) if grace is not None else None,
            policy,
            conditions.get("uid") or "",
            conditions.get("resourceVersion") or "",
            bool(asked),
            user,
        )


def _policy_errors(policy: str, orphan: bool | None) -> list[FieldError]:
    """Validates as apimachinery's ValidateDeleteOptions does."""
    errors = []
    if policy and orphan is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(FieldError("Invalid", "propagationPolicy", policy, text))
    if policy not in ("", "Orphan", "Foreground", "Background"):
        supported = 'supported values: "Foreground", "Background", "Orphan", "nil"'
        errors.append(FieldError("NotSupported", "propagationPolicy", policy, supported))
    return errors


def delete(
    registry: Registry,
    served: Served,
    namespace: str,
    name: str,
    options: DeleteOptions,
) -> Result:
    """Deletes the object, or marks it when finalizers or grace hold it. Raises StatusError."""
    while True:
        try:
            return _delete(registry, served, namespace, name, options)
        except RevisionMismatch:  # In a worker thread another write came in between.
            continue


def _delete(
    registry: Registry,
    served: Served,
    namespace: str,
    name: str,
    options: DeleteOptions,
) -> Result:
    current = registry.get(served, namespace, name)
    warnings = _admit(registry, served, current, options)
    check_preconditions(served, current, options)
    obj = current.copy()
    grace = _grace_seconds(served, obj, options.grace_period_seconds)
    if not obj["metadata"].get("deletionTimestamp"):
        served.spec.prepare_delete(obj)
    _mark(obj["metadata"], grace, options.propagation_policy)
    if is_finished(obj):
        if not options.dry_run:
            current = registry.store.delete(current.key, obj, current.revision)
        return replace(_gone(registry, served, current), warnings=warnings)
    if obj != current.obj and not options.dry_run:
        if served.counts_generation and not current.obj["metadata"].get("deletionTimestamp"):
            obj["metadata"]["generation"] = int(obj["metadata"].get("generation", 0)) + 1
        current = registry.store.update(current.key, obj, current.revision)
    return registry.result(served, current, warnings=warnings)


def delete_collection(
    registry: Registry,
    selection: Selection,
    options: DeleteOptions,
) -> list[Stored]:
    """Deletes every object of the selection; those deleted meanwhile are skipped."""
    served = selection.served
    stored_objects = registry.store.items(served.storage)
    selected = [stored for stored in stored_objects if selection.matches(stored)]
    for stored in selected:
        try:
            delete(registry, served, stored.key.namespace, stored.key.name, options)
        except status.StatusError as error:
            if error.code != 404:
                raise
    return selected


def _admit(
    registry: Registry, served: Served, current: Stored, options: DeleteOptions
) -> tuple[str, ...]:
    """Takes the deletion through admission; returns warnings."""
    attributes = Attributes(
        served,
        "DELETE",
        current.key.namespace,
        current.key.name,
        {},
        current.obj,
        dry_run=options.dry_run,
        user=options.user,
        options=options.as_json(),
    )
    registry.admission.admit(attributes)
    registry.admission.validate(attributes)
    return tuple(attributes.warnings)


def check_preconditions(served: Served, current: Stored, options: DeleteOptions) -> None:
    """Raises 409 when the object is not the one that the client wants to delete."""
    name = current.key.name
    if options.uid and options.uid != current.obj["metadata"]["uid"]:
        raise status.conflict(served.group, served.plural, name, uid_text(options.uid, current))
    if options.resource_version and options.resource_version != str(current.revision):
        raise status.conflict(
            served.group,
            served.plural,
            name,
            f"StorageError: invalid object, Code: 4, Key: /registry/{name}, ResourceVersion: 0, "
            "AdditionalErrorMsg: Precondition failed: ResourceVersion in precondition: "
            f"{options.resource_version}, ResourceVersion in object meta: {current.revision}",
        )


def _grace_seconds(served: Served, obj: KubeObject, asked: int | None) -> int:
    """The grace of a deletion; only pods have one (podStrategy.CheckGracefulDelete).

    A pod that no kubelet runs is deleted at once.
    """
    if served.storage != "pods":
        return 0
    spec = obj.get("spec") or {}
    phase = (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    grace = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
    return max(int(grace), 1) if int(grace) < 0 else int(grace)


def _mark(metadata: dict[str, Any], grace: int, policy: str) -> None:
    if policy:
        # Without a policy the finalizers that a client has set decide.
        finalizers = metadata.get("finalizers") or []
        kept = [name for name in finalizers if name not in (_ORPHAN, _FOREGROUND)]
        added = {"Orphan": [_ORPHAN], "Foreground": [_FOREGROUND]}.get(policy, [])
        metadata["finalizers"] = kept + added
        if not metadata["finalizers"]:
            del metadata["finalizers"]
    if metadata.get("deletionTimestamp"):
        # A second deletion can only shorten the grace.
        before = int(metadata.get("deletionGracePeriodSeconds") or 0)
        if grace >= before:
            return
    metadata["deletionTimestamp"] = timestamp(
        datetime.now(UTC) + timedelta(seconds=min(grace, _LONGEST_GRACE)),
    )
    metadata["deletionGracePeriodSeconds"] = grace


def _gone(registry: Registry, served: Served, stored: Stored) -> Result:
    if served.storage in _RETURNED:
        return registry.result(served, stored)
    body = status.success(
        served.group,
        served.plural,
        stored.key.name,
        stored.obj["metadata"]["uid"],
    )
    return Result(body, orjson.dumps(body))
