"""Every controller, by upstream's name (kube-controller-manager --controllers)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from components.controllers.controller import Context, Controller
from components.controllers.daemonset.controller import DaemonSetController
from components.controllers.deployment.controller import DeploymentController
from components.controllers.endpoints.controller import EndpointsController
from components.controllers.endpointslice.controller import EndpointSliceController
from components.controllers.endpointslice.mirroring import EndpointSliceMirroringController
from components.controllers.garbage.collector import GarbageCollector
from components.controllers.garbage.podgc import PodGarbageCollector
from components.controllers.job.controller import JobController, TtlAfterFinishedController
from components.controllers.namespaces.defaults import RootCaPublisher, ServiceAccountController
from components.controllers.namespaces.deletion import NamespaceController
from components.controllers.nodes.ipam import NodeIpamController
from components.controllers.nodes.lifecycle import NodeLifecycleController
from components.controllers.replicaset.controller import ReplicaSetController
from components.controllers.servicecidr.controller import ServiceCIDRController
from components.controllers.statefulset.controller import StatefulSetController

#: Order matters only for reading. The garbage collector comes last: it shares the others' informers.
CONTROLLERS: dict[str, Callable[[Context], Controller]] = {
    "serviceaccount-controller": ServiceAccountController,
    "root-ca-certificate-publisher-controller": RootCaPublisher,
    "namespace-controller": NamespaceController,
    "node-ipam-controller": NodeIpamController,
    "node-lifecycle-controller": NodeLifecycleController,
    "deployment-controller": DeploymentController,
    "replicaset-controller": ReplicaSetController,
    "daemonset-controller": DaemonSetController,
    "statefulset-controller": StatefulSetController,
    "job-controller": JobController,
    "ttl-after-finished-controller": TtlAfterFinishedController,
    "endpoints-controller": EndpointsController,
    "endpointslice-controller": EndpointSliceController,
    "endpointslice-mirroring-controller": EndpointSliceMirroringController,
    "service-cidr-controller": ServiceCIDRController,
    "pod-garbage-collector-controller": PodGarbageCollector,
    "garbage-collector-controller": GarbageCollector,
}

#: Older names that --controllers still takes.
ALIASES = {
    "serviceaccount": "serviceaccount-controller",
    "root-ca-cert-publisher": "root-ca-certificate-publisher-controller",
    "namespace": "namespace-controller",
    "nodeipam": "node-ipam-controller",
    "nodelifecycle": "node-lifecycle-controller",
    "deployment": "deployment-controller",
    "replicaset": "replicaset-controller",
    "daemonset": "daemonset-controller",
    "statefulset": "statefulset-controller",
    "job": "job-controller",
    "ttl-after-finished": "ttl-after-finished-controller",
    "endpoint": "endpoints-controller",
    "endpointslice": "endpointslice-controller",
    "endpointslicemirroring": "endpointslice-mirroring-controller",
    "podgc": "pod-garbage-collector-controller",
    "garbagecollector": "garbage-collector-controller",
}


def enabled(names: Sequence[str]) -> list[str]:
    """The controllers a --controllers list selects: foo turns on, -foo off, * all; what is named wins over *."""
    on = {ALIASES.get(name, name) for name in names if not name.startswith("-")}
    off = {ALIASES.get(name[1:], name[1:]) for name in names if name.startswith("-")}
    return [name for name in CONTROLLERS if name in on or ("*" in on and name not in off)]
