"""The list of built-in kinds; each is defined in a module of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubewire.components.apiserver.kinds.cluster import (
    customresourcedefinition,
    event,
    lease,
    namespace,
    node,
    policies,
    priorityclass,
    quotas,
    rbac,
    serviceaccount,
    webhooks,
)
from kubewire.components.apiserver.kinds.config_and_storage import (
    configmap,
    persistentvolume,
    secret,
)
from kubewire.components.apiserver.kinds.pods import pod, podtemplate
from kubewire.components.apiserver.kinds.services import (
    endpoints,
    endpointslice,
    ingress,
    networkpolicy,
    service,
    servicecidr,
)
from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.kinds.strategy import without_nulls
from kubewire.components.apiserver.kinds.workloads import (
    controllerrevision,
    cronjob,
    daemonset,
    deployment,
    horizontalpodautoscaler,
    job,
    poddisruptionbudget,
    replicaset,
    statefulset,
)
from kubewire.components.kubeapi.resources import KubeObject


def _decoded(default: Callable[[KubeObject], None]) -> Callable[[KubeObject], None]:
    """Removes nulls before the defaults, because Go's decoder drops them."""

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
        policies.VALIDATING_KIND,
        policies.VALIDATING_BINDING_KIND,
        policies.MUTATING_KIND,
        policies.MUTATING_BINDING_KIND,
        customresourcedefinition.KIND,
        priorityclass.KIND,
        lease.KIND,
        endpointslice.KIND,
    )
)
