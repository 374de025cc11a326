"""The kinds about which upstream warns, by the names of their resources in the store."""

from __future__ import annotations

from collections.abc import Callable

from kubewire.components.apiserver.kinds.warnings import (
    cluster,
    pods,
    services,
    storage,
    workloads,
)
from kubewire.components.kubeapi.resources import KubeObject

OnCreate = Callable[[KubeObject], list[str]]
OnUpdate = Callable[[KubeObject, KubeObject], list[str]]


def _never(new: KubeObject, old: KubeObject) -> list[str]:
    return []


#: Pods are written often and rarely by hand, so that upstream looks at them only once.
_TABLE: dict[str, tuple[OnCreate, OnUpdate]] = {
    "pods": (pods.on_create, _never),
    "podtemplates": (workloads.pod_template, workloads.changed_pod_template),
    "replicationcontrollers": (workloads.named_template, workloads.changed_template),
    "replicasets.apps": (workloads.named_template, workloads.changed_template),
    "deployments.apps": (workloads.named_template, workloads.changed_template),
    "daemonsets.apps": (workloads.template, workloads.changed_template),
    "statefulsets.apps": (workloads.stateful_set, workloads.changed_stateful_set),
    "jobs.batch": (workloads.job, workloads.changed_job),
    "cronjobs.batch": (workloads.cron_job, workloads.changed_cron_job),
    "services": (services.service, services.changed_service),
    "endpoints": (services.endpoints, services.changed_endpoints),
    "endpointslices.discovery.k8s.io": (
        services.endpoint_slice,
        services.changed_endpoint_slice,
    ),
    "ingresses.networking.k8s.io": (services.ingress, _never),
    "networkpolicies.networking.k8s.io": (
        services.network_policy,
        services.changed_network_policy,
    ),
    "persistentvolumes": (storage.volume, storage.changed_volume),
    "persistentvolumeclaims": (storage.claim, storage.changed_claim),
    "storageclasses.storage.k8s.io": (storage.storage_class, storage.changed_storage_class),
    "secrets": (storage.secret, storage.changed_secret),
    "csistoragecapacities.storage.k8s.io": (
        storage.storage_capacity,
        storage.changed_storage_capacity,
    ),
    "serviceaccounts": (cluster.service_account, cluster.changed_service_account),
    "runtimeclasses.node.k8s.io": (cluster.runtime_class, cluster.changed_runtime_class),
    "nodes": (cluster.node, cluster.changed_node),
    "customresourcedefinitions.apiextensions.k8s.io": (
        cluster.definition,
        cluster.changed_definition,
    ),
}


def on_create(resource: str, obj: KubeObject) -> tuple[str, ...]:
    row = _TABLE.get(resource)
    return tuple(row[0](obj)) if row else ()


def on_update(resource: str, new: KubeObject, old: KubeObject) -> tuple[str, ...]:
    row = _TABLE.get(resource)
    return tuple(row[1](new, old)) if row else ()
