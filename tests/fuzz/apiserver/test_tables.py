"""What a kind's own functions make of objects that lack any of their fields: columns, defaults, validation.

Go's decoder gives a missing field its zero value, so upstream's functions never miss one; here it is a key that is not
there. Every field of the kind's definition may be missing, and none has a value of another type: those are refused
before.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from kubewire.components.apiserver.kinds import KINDS
from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.openapi import models
from kubewire.components.kubeapi.resources import KubeObject

#: Deeper than any field that a column shows.
_DEPTH = 8
_WORDS = (
    "",
    "a",
    "web",
    "True",
    "False",
    "Unknown",
    "Running",
    "Failed",
    "InternalIP",
    "TCP",
    "80%",
    "10.0.0.1",
    "fd00::1",
)
_NOW = datetime(2026, 1, 2, tzinfo=UTC)
MODELLED = [spec for spec in KINDS if models.of_kind(spec.resource.group, spec.resource.version, spec.resource.kind)]


def of(model: models.Model, rng: random.Random, depth: int = _DEPTH) -> dict[str, Any]:
    """An object of a definition in which every field may be missing, and none is of another type."""
    return {name: value(kind, rng, depth - 1) for name, kind in model.fields.items() if depth and rng.random() < 0.7}


def value(kind: str, rng: random.Random, depth: int) -> Any:
    held = kind[1:]
    match kind[0]:
        case "#":
            return of(models.all_models()[held], rng, depth)
        case "[":
            return [value(held, rng, depth) for _ in range(rng.choice([0, 1, 1, 2, 3]) if depth else 0)]
        case "{":
            return {rng.choice(_WORDS): value(held, rng, depth) for _ in range(rng.choice([0, 1, 2]) if depth else 0)}
        case "i" | "l":
            return rng.choice([0, 1, 7, -1, 2**31 - 1])
        case "n":
            return rng.choice([0.0, 0.5, 1e9])
        case "b":
            return rng.random() < 0.5
        case "t" | "u":
            return rng.choice(["2026-01-01T00:00:00Z", "2027-01-01T00:00:00.000001Z", "0001-01-01T00:00:00Z"])
        case "q":
            return rng.choice(["1", "500m", "2Gi", "0"])
        case "x":
            return rng.choice([80, "http", "25%"])
        case "y":
            return ""
        case "o":
            return rng.choice([{}, [], "text", 1, True])
    return rng.choice(_WORDS) if rng.random() < 0.8 else "".join(rng.choices(string.printable, k=5))


def some(spec: KindSpec, rng: random.Random) -> dict[str, Any]:
    model = models.of_kind(spec.resource.group, spec.resource.version, spec.resource.kind)
    assert model is not None
    made = of(model, rng)
    made["metadata"] = made.get("metadata", {}) | {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return made


@pytest.mark.parametrize("spec", MODELLED, ids=lambda spec: spec.resource.kind)
def test_any_object_of_a_kind(
    spec: KindSpec, examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]
) -> None:
    for _ in range(max(examples // 10, 1)):  # a tenth: each goes through nine functions, for thirty kinds
        timely(lambda: through_all(spec, some(spec, chance), some(spec, chance)))


def through_all(spec: KindSpec, old: KubeObject, new: KubeObject) -> None:
    if spec.row is not None:
        assert len(spec.row(deepcopy(new), _NOW)) == len(spec.columns)
    for obj in (old, new):
        spec.default(obj)
        spec.selectable_fields(obj)
    created = deepcopy(new)
    spec.prepare_create(created)
    spec.validate_create(created)
    spec.prepare_update(updated := deepcopy(new), old)
    spec.validate_update(updated, old)
    spec.prepare_status_update(new, old)
    spec.validate_status_update(new, old)
