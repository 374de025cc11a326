"""Event, as core/v1 and events.k8s.io/v1 (k8s.io/kubernetes/pkg/registry/core/event)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.cluster import eventconversion
from kubewire.components.apiserver.kinds.duration import since
from kubewire.components.apiserver.kinds.spec import Column, KindSpec, Storage
from kubewire.components.kubeapi.resources import EVENTS, KubeObject, Resource

EVENTS_V1: Resource[KubeObject] = Resource("events.k8s.io", "v1", "events", "Event")

COLUMNS = (
    Column("Last Seen", "string", "", "When it was last seen."),
    Column("Type", "string", "", "Normal or Warning."),
    Column("Reason", "string", "", "Why the object is in its present state, in one word."),
    Column("Object", "string", "", "The object that the event is about."),
    Column("Subobject", "string", "", "The part of the object that the event is about.", 1),
    Column("Source", "string", "", "The component that reports it.", 1),
    Column("Message", "string", "", "What happened."),
    Column("First Seen", "string", "", "When it was first seen.", 1),
    Column("Count", "string", "", "How often it happened.", 1),
    Column("Name", "string", "name", "Name must be unique within a namespace.", 1),
)


def row(event: KubeObject, now: datetime) -> list[Any]:
    """The row of either version; events.k8s.io/v1 has the old fields with the prefix deprecated."""
    first = _first(event, now)
    last_time = event.get("lastTimestamp") or event.get("deprecatedLastTimestamp")
    last = since(last_time, now) if last_time else first
    count = event.get("count") or event.get("deprecatedCount") or 1
    series = event.get("series")
    if series:
        last = since(series.get("lastObservedTime"), now)
        count = series.get("count", 0)
    about = event.get("involvedObject") or event.get("regarding") or {}
    return [
        last,
        event.get("type", ""),
        event.get("reason", ""),
        _target(about),
        about.get("fieldPath", ""),
        _source(event),
        (event.get("message") or event.get("note") or "").strip(),
        first,
        count,
        cells.name(event),
    ]


def _first(event: KubeObject, now: datetime) -> str:
    first = event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp")
    return since(first or event.get("eventTime"), now)


def _target(about: dict[str, Any]) -> str:
    kind = about.get("kind", "").lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def _source(event: KubeObject) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    reporter = event.get("reportingComponent") or event.get("reportingController") or ""
    component = source.get("component") or reporter
    host = source.get("host") or event.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def selectable_fields(event: KubeObject) -> dict[str, str]:
    about = event.get("involvedObject") or event.get("regarding") or {}
    source = cells.at(event, "source", "component")
    source = source or cells.at(event, "deprecatedSource", "component")
    reporter = event.get("reportingComponent") or event.get("reportingController") or ""
    # Each of the two versions of the API has names of its own for the same fields.
    fields = {
        f"{name}.{key}": about.get(key, "")
        for name in ("involvedObject", "regarding")
        for key in _ABOUT
    }
    return fields | {
        "reason": event.get("reason", ""),
        "reportingComponent": reporter,
        "reportingController": reporter,
        "source": source or reporter,
        "type": event.get("type", ""),
    }


KIND = KindSpec(
    resource=EVENTS,
    singular="event",
    short_names=("ev",),
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
KIND_V1 = KindSpec(
    resource=EVENTS_V1,
    singular="event",
    storage=Storage("events", "v1", eventconversion.to_core, eventconversion.from_core),
    short_names=("ev",),
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
