"""Builders of objects as a client would send them, and the registry's steps around a kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from kubewire.components.apiserver import openapi
from kubewire.components.apiserver.kinds import KINDS
from kubewire.components.apiserver.kinds.spec import KindSpec

Object = dict[str, Any]


def kind_of(name: str) -> KindSpec:
    return next(spec for spec in KINDS if spec.resource.kind == name)


@pytest.fixture
def created() -> Callable[[str, Object], Object]:
    """created("Pod", {...}): the object as the registry has it before admission."""

    def create(name: str, obj: Object) -> Object:
        spec, made = kind_of(name), copy.deepcopy(obj)
        made["metadata"] = {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z", **made.get("metadata", {})}
        made["kind"], made["apiVersion"] = spec.resource.kind, spec.resource.api_version
        types = (spec.resource.group, spec.resource.version, name)
        assert not openapi.decode(made, *types).error
        spec.prepare_create(made)
        spec.default(made)
        openapi.complete(made, *types)
        return made

    return create


@pytest.fixture
def complaints(created: Callable[[str, Object], Object]) -> Callable[[str, Object], list[str]]:
    """complaints("Pod", {...}): what a create is answered with, as whole messages."""

    def complain(name: str, obj: Object) -> list[str]:
        return [error.message() for error in kind_of(name).validate_create(created(name, obj))]

    return complain


@pytest.fixture
def update_complaints(created: Callable[[str, Object], Object]) -> Callable[[str, Object, Object], list[str]]:
    """update_complaints("Pod", old, new): what an update of a created object is answered with."""

    def complain(name: str, old: Object, new: Object) -> list[str]:
        spec, before, after = kind_of(name), created(name, old), created(name, new)
        spec.prepare_update(after, before)
        return [error.message() for error in spec.validate_update(after, before)]

    return complain


@pytest.fixture
def row_of() -> Callable[[str, Object], dict[str, Any]]:
    """row_of("Pod", {...}): column name -> cell, on 2026-01-01 at 01:00:00."""
    from datetime import UTC, datetime

    def row(name: str, obj: Object) -> dict[str, Any]:
        spec = kind_of(name)
        assert spec.row is not None
        whole = {"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, **obj}
        cells = spec.row(whole, datetime(2026, 1, 1, 1, tzinfo=UTC))
        return dict(zip([column.name for column in spec.columns], cells, strict=True))

    return row
