"""Lease (coordination.k8s.io/v1): k8s.io/kubernetes/pkg/registry/coordination/lease."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.spec import Column, KindSpec
from components.machinery.resources import LEASES, KubeObject


def row(lease: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(lease), cells.at(lease, "spec", "holderIdentity") or "", cells.age(lease, now)]


KIND = KindSpec(
    resource=LEASES,
    singular="lease",
    columns=(cells.NAME, Column("Holder", "string", "", "Who holds the lease."), cells.AGE),
    row=row,
)
