"""The list of all controllers by upstream's names, which --controllers selects from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubewire.components.controllers.autoscaling.controller import HorizontalPodAutoscalerController
from kubewire.components.controllers.certificates import (
    CertificateApprover,
    CertificateCleaner,
    CertificateSigner,
)
from kubewire.components.controllers.clusterroleaggregation.controller import (
    ClusterRoleAggregationController,
)
from kubewire.components.controllers.controller import Context, Controller
from kubewire.components.controllers.cronjob.controller import CronJobController
from kubewire.components.controllers.daemonset.controller import DaemonSetController
from kubewire.components.controllers.deployment.controller import DeploymentController
from kubewire.components.controllers.disruption.controller import DisruptionController
from kubewire.components.controllers.endpoints.controller import EndpointsController
from kubewire.components.controllers.endpointslice.controller import EndpointSliceController
from kubewire.components.controllers.endpointslice.mirroring import EndpointSliceMirroringController
from kubewire.components.controllers.garbage.collector import GarbageCollector
from kubewire.components.controllers.garbage.podgc import PodGarbageCollector
from kubewire.components.controllers.job.controller import JobController, TtlAfterFinishedController
from kubewire.components.controllers.namespaces.defaults import (
    RootCaPublisher,
    ServiceAccountController,
)
from kubewire.components.controllers.namespaces.deletion import NamespaceController
from kubewire.components.controllers.nodes.ipam import NodeIpamController
from kubewire.components.controllers.nodes.lifecycle import NodeLifecycleController
from kubewire.components.controllers.nodes.ttl import TtlController
from kubewire.components.controllers.replicaset.controller import (
    ReplicaSetController,
    ReplicationController,
)
from kubewire.components.controllers.resourcequota.controller import ResourceQuotaController
from kubewire.components.controllers.servicecidr.controller import ServiceCIDRController
from kubewire.components.controllers.statefulset.controller import StatefulSetController
from kubewire.components.controllers.storage.controller import PersistentVolumeBinder
from kubewire.components.controllers.storage.ephemeral import EphemeralVolumeController
from kubewire.components.controllers.storage.protection import ClaimProtection, VolumeProtection
from kubewire.components.controllers.storage.provisioner import LocalPathProvisioner

#: The order only helps the reader: the garbage collector uses the informers of all others.
CONTROLLERS: dict[str, Callable[[Context], Controller]] = {
    "serviceaccount-controller": ServiceAccountController,
    "root-ca-certificate-publisher-controller": RootCaPublisher,
    "namespace-controller": NamespaceController,
    "node-ipam-controller": NodeIpamController,
    "node-lifecycle-controller": NodeLifecycleController,
    "ttl-controller": TtlController,
    "deployment-controller": DeploymentController,
    "replicaset-controller": ReplicaSetController,
    "replicationcontroller-controller": ReplicationController,
    "daemonset-controller": DaemonSetController,
    "statefulset-controller": StatefulSetController,
    "job-controller": JobController,
    "horizontal-pod-autoscaler-controller": HorizontalPodAutoscalerController,
    "cronjob-controller": CronJobController,
    "ttl-after-finished-controller": TtlAfterFinishedController,
    "disruption-controller": DisruptionController,
    "resourcequota-controller": ResourceQuotaController,
    "endpoints-controller": EndpointsController,
    "endpointslice-controller": EndpointSliceController,
    "endpointslice-mirroring-controller": EndpointSliceMirroringController,
    "service-cidr-controller": ServiceCIDRController,
    "persistentvolume-binder-controller": PersistentVolumeBinder,
    "persistentvolumeclaim-protection-controller": ClaimProtection,
    "persistentvolume-protection-controller": VolumeProtection,
    "ephemeral-volume-controller": EphemeralVolumeController,
    "local-path-provisioner": LocalPathProvisioner,
    "certificatesigningrequest-approving-controller": CertificateApprover,
    "certificatesigningrequest-signing-controller": CertificateSigner,
    "certificatesigningrequest-cleaner-controller": CertificateCleaner,
    "pod-garbage-collector-controller": PodGarbageCollector,
    "clusterrole-aggregation-controller": ClusterRoleAggregationController,
    "garbage-collector-controller": GarbageCollector,
}

#: Older names that --controllers still accepts.
ALIASES = {
    "serviceaccount": "serviceaccount-controller",
    "root-ca-cert-publisher": "root-ca-certificate-publisher-controller",
    "namespace": "namespace-controller",
    "nodeipam": "node-ipam-controller",
    "nodelifecycle": "node-lifecycle-controller",
    "ttl": "ttl-controller",
    "deployment": "deployment-controller",
    "replicaset": "replicaset-controller",
    "replicationcontroller": "replicationcontroller-controller",
    "daemonset": "daemonset-controller",
    "statefulset": "statefulset-controller",
    "job": "job-controller",
    "horizontalpodautoscaling": "horizontal-pod-autoscaler-controller",
    "cronjob": "cronjob-controller",
    "ttl-after-finished": "ttl-after-finished-controller",
    "disruption": "disruption-controller",
    "resourcequota": "resourcequota-controller",
    "endpoint": "endpoints-controller",
    "endpointslice": "endpointslice-controller",
    "endpointslicemirroring": "endpointslice-mirroring-controller",
    "csrapproving": "certificatesigningrequest-approving-controller",
    "csrsigning": "certificatesigningrequest-signing-controller",
    "csrcleaner": "certificatesigningrequest-cleaner-controller",
    "persistentvolume-binder": "persistentvolume-binder-controller",
    "pvc-protection": "persistentvolumeclaim-protection-controller",
    "pv-protection": "persistentvolume-protection-controller",
    "ephemeral-volume": "ephemeral-volume-controller",
    "clusterrole-aggregation": "clusterrole-aggregation-controller",
    "podgc": "pod-garbage-collector-controller",
    "garbagecollector": "garbage-collector-controller",
}


def enabled(names: Sequence[str]) -> list[str]:
    """The controllers that --controllers selects.

    foo enables, -foo disables and * enables all; a controller enabled by name wins over -foo.
    """
    on = {ALIASES.get(name, name) for name in names if not name.startswith("-")}
    off = {ALIASES.get(name[1:], name[1:]) for name in names if name.startswith("-")}
    return [name for name in CONTROLLERS if name in on or ("*" in on and name not in off)]
