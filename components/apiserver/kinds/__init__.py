"""The list of built-in kinds; each is defined in a module of its own."""

from __future__ import annotations

from kubewire.components.apiserver.kinds.cluster import (
    customresourcedefinition,
    event,
    lease,
    namespace,
    node,
    priorityclass,
    quotas,
    rbac,
    serviceaccount,
    webhooks,
)
from kubewire.components.apiserver.kinds.config import (
    configmap,
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
from kubewire.components.apiserver.kinds.storage import (
    persistentvolume,
    persistentvolumeclaim,
    storageclass,
)
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

KINDS: tuple[KindSpec, ...] = (
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
    persistentvolume.KIND,
    persistentvolumeclaim.KIND,
    podtemplate.KIND,
    podtemplate.CONTROLLER_KIND,
    deployment.KIND,
    replicaset.KIND,
    daemonset.KIND,
    statefulset.KIND,
    controllerrevision.KIND,
    event.KIND_V1,
    horizontalpodautoscaler.KIND,
    horizontalpodautoscaler.KIND_V1,
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
    storageclass.KIND,
    webhooks.MUTATING_KIND,
    webhooks.VALIDATING_KIND,
    customresourcedefinition.KIND,
    priorityclass.KIND,
    lease.KIND,
    endpointslice.KIND,
)
