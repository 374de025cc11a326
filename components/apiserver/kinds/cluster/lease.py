"""Lease (coordination.k8s.io/v1): k8s.io/kubernetes/pkg/registry/coordination/lease."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import invalid, not_negative
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import LEASES, KubeObject


def validate_create(lease: KubeObject) -> list[FieldError]:
    spec = lease.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    errors = []
    if seconds is not None and seconds <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    return errors + not_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def row(lease: KubeObject, now: datetime) -> list[Any]:
    return [
        cells.name(lease),
        cells.at(lease, "spec", "holderIdentity") or "",
        cells.age(lease, now),
    ]


KIND = KindSpec(
    resource=LEASES,
    singular="lease",
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(cells.NAME, Column("Holder", "string", "", "The holder of the lease."), cells.AGE),
    row=row,
    unconditional_update=False,
)
