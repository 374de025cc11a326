"""ServiceAccount (core/v1): k8s.io/kubernetes/pkg/registry/core/serviceaccount.

http/subresources.py serves its subresource `token`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.spec import KindSpec, Subresource
from kubewire.components.kubeapi.resources import SERVICEACCOUNTS, KubeObject


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), cells.age(obj, now)]


KIND = KindSpec(
    resource=SERVICEACCOUNTS,
    singular="serviceaccount",
    more_subresources=(
        Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),
    ),
    short_names=("sa",),
    columns=(cells.NAME, cells.AGE),
    row=row,
)
