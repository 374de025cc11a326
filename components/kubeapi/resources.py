"""The resources that components read and write: group, version, plural, kind (Kubernetes API
concepts, https://kubernetes.io/docs/reference/using-api/api-concepts/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from kubewire.components.kubeapi import types

#: A Kubernetes object as decoded JSON, of a kind that types.py does not have or of any kind.
KubeObject = dict[str, Any]
#: An object of one kind: a TypedDict of types.py, or KubeObject.
T = TypeVar("T", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Resource(Generic[T]):
    """A REST resource, and for mypy the type of its objects. group is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str = ""
    ) -> str:
        """The URL path: /api/v1/namespaces/NS/pods/NAME/status, /apis/apps/v1/deployments, ..."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


NODES: Resource[types.Node] = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES: Resource[types.Namespace] = Resource(
    "", "v1", "namespaces", "Namespace", namespaced=False
)
PODS: Resource[types.Pod] = Resource("", "v1", "pods", "Pod")
SERVICES: Resource[types.Service] = Resource("", "v1", "services", "Service")
ENDPOINTS: Resource[types.Endpoints] = Resource("", "v1", "endpoints", "Endpoints")
CONFIGMAPS: Resource[types.ConfigMap] = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS: Resource[types.Secret] = Resource("", "v1", "secrets", "Secret")
SERVICEACCOUNTS: Resource[types.ServiceAccount] = Resource(
    "", "v1", "serviceaccounts", "ServiceAccount"
)
REPLICATIONCONTROLLERS: Resource[types.ReplicationController] = Resource(
    "", "v1", "replicationcontrollers", "ReplicationController"
)
RESOURCEQUOTAS: Resource[KubeObject] = Resource("", "v1", "resourcequotas", "ResourceQuota")
EVENTS: Resource[types.Event] = Resource("", "v1", "events", "Event")
LEASES: Resource[types.Lease] = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ENDPOINTSLICES: Resource[types.EndpointSlice] = Resource(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"
)
DEPLOYMENTS: Resource[types.Deployment] = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS: Resource[types.ReplicaSet] = Resource("apps", "v1", "replicasets", "ReplicaSet")
DAEMONSETS: Resource[types.DaemonSet] = Resource("apps", "v1", "daemonsets", "DaemonSet")
STATEFULSETS: Resource[types.StatefulSet] = Resource("apps", "v1", "statefulsets", "StatefulSet")
CONTROLLERREVISIONS: Resource[types.ControllerRevision] = Resource(
    "apps", "v1", "controllerrevisions", "ControllerRevision"
)
PERSISTENTVOLUMES: Resource[types.PersistentVolume] = Resource(
    "", "v1", "persistentvolumes", "PersistentVolume", namespaced=False
)
PERSISTENTVOLUMECLAIMS: Resource[types.PersistentVolumeClaim] = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"
)
STORAGECLASSES: Resource[types.StorageClass] = Resource(
    "storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False
)
HORIZONTALPODAUTOSCALERS: Resource[types.HorizontalPodAutoscaler] = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)
CRONJOBS: Resource[types.CronJob] = Resource("batch", "v1", "cronjobs", "CronJob")
CERTIFICATESIGNINGREQUESTS: Resource[types.CertificateSigningRequest] = Resource(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    namespaced=False,
)
JOBS: Resource[types.Job] = Resource("batch", "v1", "jobs", "Job")
PODDISRUPTIONBUDGETS: Resource[KubeObject] = Resource(
    "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"
)
NETWORKPOLICIES: Resource[KubeObject] = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"
)
INGRESSES: Resource[KubeObject] = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESSCLASSES: Resource[KubeObject] = Resource(
    "networking.k8s.io",
    "v1",
    "ingressclasses",
    "IngressClass",
    namespaced=False,
)
SERVICECIDRS: Resource[types.ServiceCIDR] = Resource(
    "networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False
)
IPADDRESSES: Resource[types.IPAddress] = Resource(
    "networking.k8s.io", "v1", "ipaddresses", "IPAddress", namespaced=False
)
CUSTOMRESOURCEDEFINITIONS: Resource[KubeObject] = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
