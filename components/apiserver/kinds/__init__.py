"""The built-in kinds: one module per kind, one line per kind here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from components.apiserver.kinds import (
    configmap,
    controllerrevision,
    daemonset,
    deployment,
    endpoints,
    endpointslice,
    event,
    job,
    lease,
    namespace,
    node,
    pod,
    replicaset,
    secret,
    service,
    serviceaccount,
    statefulset,
)
from components.apiserver.kinds.spec import KindSpec
from components.apiserver.kinds.strategy import without_nulls
from components.machinery.resources import KubeObject


def _decoded(default: Callable[[KubeObject], None]) -> Callable[[KubeObject], None]:
    """Defaults see what Go's decoder sees: no nulls."""

    def decoded_default(obj: KubeObject) -> None:
        without_nulls(obj)
        default(obj)

    return decoded_default


KINDS: tuple[KindSpec, ...] = tuple(
    replace(kind, default=_decoded(kind.default))
    for kind in (
        node.KIND,
        namespace.KIND,
        pod.KIND,
        service.KIND,
        endpoints.KIND,
        configmap.KIND,
        secret.KIND,
        serviceaccount.KIND,
        event.KIND,
        event.KIND_V1,
        deployment.KIND,
        replicaset.KIND,
        daemonset.KIND,
        statefulset.KIND,
        controllerrevision.KIND,
        job.KIND,
        lease.KIND,
        endpointslice.KIND,
    )
)
