"""Columns and cells that several kinds share (k8s.io/kubernetes/pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds.duration import since
from kubewire.components.apiserver.kinds.spec import NAME_COLUMNS, Column
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector

NAME, AGE = NAME_COLUMNS
CONTAINERS = Column("Containers", "string", "", "Names of each container in the template.", 1)
IMAGES = Column("Images", "string", "", "Images referenced by each container in the template.", 1)
SELECTOR = Column("Selector", "string", "", "Which pods belong to the object.", 1)

NONE = "<none>"
UNSET = "<unset>"
UNKNOWN = "<unknown>"


def name(obj: KubeObject) -> str:
    return str(obj["metadata"].get("name", ""))


def age(obj: KubeObject, now: datetime) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def labels(pairs: Mapping[str, str] | None) -> str:
    """Formats labels as `a=b,c=d`, sorted, or <none> (labels.FormatLabels)."""
    return ",".join(f"{key}={value}" for key, value in sorted((pairs or {}).items())) or NONE


def selector(obj: Mapping[str, Any] | None) -> str:
    """Formats a label selector (metav1.FormatLabelSelector)."""
    return str(LabelSelector.from_object(obj)) or NONE


def containers(pod_spec: Mapping[str, Any]) -> tuple[str, str]:
    """The names and the images of the containers, each joined with commas."""
    items = pod_spec.get("containers") or ()
    names = ",".join(item.get("name", "") for item in items)
    images = ",".join(item.get("image", "") for item in items)
    return names, images


def at(obj: Mapping[str, Any], *path: str) -> Any:
    """The value at a path of keys, or None where a key is missing."""
    value: Any = obj
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
