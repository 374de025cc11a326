"""The built-in kinds: one module per kind, one line per kind here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubewire.components.apiserver.kinds import (
    configmap,
    controllerrevision,
    cronjob,
    customresourcedefinition,
    daemonset,
    deployment,
    endpoints,
    endpointslice,
    event,
    horizontalpodautoscaler,
    ingress,
    job,
    lease,
    namespace,
    networkpolicy,
    node,
    persistentvolume,
    pod,
    poddisruptionbudget,
    podtemplate,
    priorityclass,
    quotas,
    rbac,
    replicaset,
    secret,
    service,
    serviceaccount,
    servicecidr,
    statefulset,
    webhooks,
)
from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.kinds.strategy import without_nulls
from kubewire.components.machinery.resources import KubeObject


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
        quotas.LIMITRANGE_KIND,
        quotas.RESOURCEQUOTA_KIND,
        persistentvolume.VOLUME_KIND,
        persistentvolume.CLAIM_KIND,
        podtemplate.KIND,
        podtemplate.CONTROLLER_KIND,
        deployment.KIND,
        replicaset.KIND,
        daemonset.KIND,
        statefulset.KIND,
        controllerrevision.KIND,
        event.KIND_V1,
        horizontalpodautoscaler.KIND,
        job.KIND,
        cronjob.KIND,
        networkpolicy.KIND,
        ingress.KIND,
        ingress.CLASS_KIND,
        servicecidr.KIND,
        servicecidr.ADDRESS_KIND,
        poddisruptionbudget.KIND,
        rbac.ROLE_KIND,
        rbac.CLUSTERROLE_KIND,
        rbac.ROLEBINDING_KIND,
        rbac.CLUSTERROLEBINDING_KIND,
        persistentvolume.CLASS_KIND,
        webhooks.MUTATING_KIND,
        webhooks.VALIDATING_KIND,
        customresourcedefinition.KIND,
        priorityclass.KIND,
        lease.KIND,
        endpointslice.KIND,
    )
)
