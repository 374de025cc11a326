"""FlowSchema and PriorityLevelConfiguration (flowcontrol.apiserver.k8s.io/v1):
pkg/apis/flowcontrol.

The objects that every cluster has exist, and clients can read and write them; requests are not
queued by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import (
    forbidden,
    invalid,
    not_negative,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import KubeObject, Resource

_GROUP = "flowcontrol.apiserver.k8s.io"
FLOWSCHEMAS: Resource[KubeObject] = Resource(
    _GROUP, "v1", "flowschemas", "FlowSchema", namespaced=False
)
PRIORITYLEVELS: Resource[KubeObject] = Resource(
    _GROUP, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", namespaced=False
)
_LAST = 10_000
_METHODS = ("ByNamespace", "ByUser")


def default_schema(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def validate_schema(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = []
    precedence = spec.get("matchingPrecedence", 0)
    if precedence < 1 or precedence > _LAST:
        text = f"must be between 1 and {_LAST}, inclusive"
        errors.append(invalid("spec.matchingPrecedence", precedence, text))
    if precedence == 1 and cells.name(obj) != "exempt":
        text = "only the schema named 'exempt' may have matchingPrecedence 1"
        errors.append(invalid("spec.matchingPrecedence", precedence, text))
    if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
        text = "must reference a priority level"
        errors.append(required("spec.priorityLevelConfiguration.name", text))
    method = spec.get("distinguisherMethod")
    if method is not None:
        errors += one_of("spec.distinguisherMethod.type", method.get("type"), _METHODS)
    return errors


def schema_row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    conditions = cells.at(obj, "status", "conditions") or ()
    dangling = [item["status"] for item in conditions if item.get("type") == "Dangling"]
    return [
        cells.name(obj),
        cells.at(spec, "priorityLevelConfiguration", "name") or "",
        spec.get("matchingPrecedence", 0),
        cells.at(spec, "distinguisherMethod", "type") or cells.NONE,
        cells.age(obj, now),
        dangling[0] if dangling else "?",
    ]


SCHEMA_KIND = KindSpec(
    resource=FLOWSCHEMAS,
    singular="flowschema",
    generation=True,
    subresources=("status",),
    default=default_schema,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_schema,
    validate_update=lambda new, old: validate_schema(new),
    columns=(
        cells.NAME,
        Column("PriorityLevel", "string", "", "The level of its requests."),
        Column("MatchingPrecedence", "string", "", "Lower numbers are looked at first."),
        Column("DistinguisherMethod", "string", "", "How its requests are divided into flows."),
        cells.AGE,
        Column("MissingPL", "string", "", "Whether its level does not exist."),
    ),
    row=schema_row,
)

_QUEUING = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}


def default_level(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    limited = spec.get("limited")
    if isinstance(limited, dict):
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        response = limited.get("limitResponse") or {}
        if response.get("type") == "Queue":
            response["queuing"] = {**_QUEUING, **(response.get("queuing") or {})}
    if spec.get("type") == "Exempt":
        exempt = spec.setdefault("exempt", {})
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)


def validate_level(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = one_of("spec.type", spec.get("type"), ("Exempt", "Limited"))
    if spec.get("type") == "Exempt" and spec.get("limited") is not None:
        text = "must be nil if the type is not Limited"
        errors.append(forbidden("spec.limited", text))
    if spec.get("type") != "Limited":
        return errors
    limited = spec.get("limited")
    if limited is None:
        return [*errors, required("spec.limited", "must not be empty when type is Limited")]
    shares = limited.get("nominalConcurrencyShares")
    errors += not_negative("spec.limited.nominalConcurrencyShares", shares)
    kind = (limited.get("limitResponse") or {}).get("type")
    return errors + one_of("spec.limited.limitResponse.type", kind, ("Queue", "Reject"))


def level_row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    part = spec.get("limited") or spec.get("exempt") or {}
    queuing: Mapping[str, Any] = cells.at(part, "limitResponse", "queuing") or {}
    return [
        cells.name(obj),
        spec.get("type", ""),
        part.get("nominalConcurrencyShares", cells.NONE),
        *(queuing.get(key, cells.NONE) for key in _QUEUING),
        cells.age(obj, now),
    ]


LEVEL_KIND = KindSpec(
    resource=PRIORITYLEVELS,
    singular="prioritylevelconfiguration",
    generation=True,
    subresources=("status",),
    default=default_level,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_level,
    validate_update=lambda new, old: validate_level(new),
    columns=(
        cells.NAME,
        Column("Type", "string", "", "Exempt or Limited."),
        Column("NominalConcurrencyShares", "string", "", "Its share of the requests at a time."),
        Column("Queues", "string", "", "The number of its queues."),
        Column("HandSize", "string", "", "From how many queues a flow gets one."),
        Column("QueueLengthLimit", "string", "", "How many requests wait in one queue."),
        cells.AGE,
    ),
    row=level_row,
)


def _rule(verbs: Iterable[str], groups: Iterable[str], resources: Iterable[str]) -> KubeObject:
    return {
        "verbs": list(verbs),
        "apiGroups": list(groups),
        "resources": list(resources),
        "namespaces": ["*"],
        "clusterScope": True,
    }


def mandatory() -> list[tuple[Resource[KubeObject], KubeObject]]:
    """The objects without which no server runs (apiserver/pkg/apis/flowcontrol/bootstrap)."""
    everything = {
        "resourceRules": [_rule("*", "*", "*")],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }

    def groups(*names: str) -> list[KubeObject]:
        return [{"kind": "Group", "group": {"name": name}} for name in names]

    reject = {"type": "Reject"}
    catch_all: KubeObject = {
        "matchingPrecedence": _LAST,
        "priorityLevelConfiguration": {"name": "catch-all"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [
            {"subjects": groups("system:unauthenticated", "system:authenticated"), **everything}
        ],
    }
    exempt: KubeObject = {
        "matchingPrecedence": 1,
        "priorityLevelConfiguration": {"name": "exempt"},
        "rules": [{"subjects": groups("system:masters"), **everything}],
    }
    limited = {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": reject}
    return [
        (PRIORITYLEVELS, _named("exempt", {"type": "Exempt", "exempt": {}})),
        (PRIORITYLEVELS, _named("catch-all", {"type": "Limited", "limited": limited})),
        (FLOWSCHEMAS, _named("exempt", exempt)),
        (FLOWSCHEMAS, _named("catch-all", catch_all)),
    ]


def _named(name: str, spec: KubeObject) -> KubeObject:
    notes = {"apf.kubernetes.io/autoupdate-spec": "true"}
    return {"metadata": {"name": name, "annotations": notes}, "spec": spec}
