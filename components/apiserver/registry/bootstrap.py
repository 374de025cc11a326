"""Creates and keeps the objects that every cluster has: system namespaces, default/kubernetes, the
default ServiceCIDR and the system's priority classes.

These are upstream's controllers systemnamespaces, kubernetesservice and defaultservicecidr
(k8s.io/kubernetes/pkg/controlplane/controller), and the post-start hook of scheduling.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kubewire.components.apiserver.kinds.cluster import apiservice, flowcontrol
from kubewire.components.apiserver.kinds.cluster.apiservice import APISERVICES
from kubewire.components.apiserver.kinds.cluster.priorityclass import (
    PRIORITYCLASSES,
    SYSTEM_PRIORITIES,
)
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.registry.metadata import timestamp
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import WriteOptions
from kubewire.components.apiserver.status import StatusError
from kubewire.components.apiserver.store import Event, Key
from kubewire.components.kubeapi.resources import (
    CONFIGMAPS,
    ENDPOINTS,
    ENDPOINTSLICES,
    NAMESPACES,
    SERVICECIDRS,
    SERVICES,
    KubeObject,
    Resource,
)

log = logging.getLogger(__name__)

SYSTEM_NAMESPACES = ("kube-system", "kube-public", "default", "kube-node-lease")
_PRIORITY_CLASSES = {
    "system-node-critical": (
        "Used for system critical pods that must not be moved from their current node."
    ),
    "system-cluster-critical": (
        "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary."
    ),
}
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")
_NAME = "kubernetes"
_TRUST = "extension-apiserver-authentication"
#: The priority of the first group in discovery.
_PRIORITY = 18_000


def first_address(cidr: str) -> str:
    network = ipaddress.ip_network(_cidrs(cidr)[0])
    return str(network.network_address + 1)


def _cidrs(flag: str) -> list[str]:
    return [cidr.strip() for cidr in flag.split(",")]


def _with_missing(given: KubeObject, obj: KubeObject) -> KubeObject:
    """The object with the fields that it lacks; what a user changed stays."""
    return given | obj


@dataclass
class Bootstrap:
    """reconcile() creates what is missing; keep() also repairs it after every change."""

    registry: Registry
    catalog: Catalog
    advertise_address: str
    port: int
    service_cidr: str
    #: The data of extension-apiserver-authentication: authorities in PEM, and names of headers.
    trust: Mapping[str, str] = field(default_factory=dict)
    #: Group and version of what this server has itself, in the order of discovery.
    api_versions: Sequence[tuple[str, str]] = ()
    _due: bool = field(default=False, init=False)

    def reconcile(self) -> None:
        """Creates or repairs the objects; it may be repeated.

        An error is logged and not raised, because the server is useful without them.
        """
        for name in SYSTEM_NAMESPACES:
            self._ensure(NAMESPACES, "", name, lambda obj: obj)
        for name, description in _PRIORITY_CLASSES.items():
            fields = {"value": SYSTEM_PRIORITIES[name], "description": description}
            self._ensure(PRIORITYCLASSES, "", name, partial(operator.or_, fields))
        for resource, obj in flowcontrol.mandatory():
            given = {"spec": obj["spec"]}
            self._ensure(resource, "", obj["metadata"]["name"], partial(_with_missing, given))
        for order, (group, version) in enumerate(self.api_versions):
            self._ensure_api_service(apiservice.local(group, version, _PRIORITY - 100 * order))
        if self.trust:
            self._ensure(CONFIGMAPS, "kube-system", _TRUST, self._trust)
        self._ensure(SERVICECIDRS, "", _NAME, self._service_cidr)
        self._ensure_service_cidr_ready()
        self._ensure(SERVICES, "default", _NAME, self._service)
        self._ensure(ENDPOINTS, "default", _NAME, self._endpoints)
        self._ensure(ENDPOINTSLICES, "default", _NAME, self._slice)

    def keep(self) -> None:
        for resource in (SERVICES, ENDPOINTS, ENDPOINTSLICES, NAMESPACES, SERVICECIDRS):
            if served := self._served(resource):
                self.registry.store.subscribe(served.storage, self._on_event)

    def _on_event(self, event: Event) -> None:
        key = event.stored.key
        is_default = key.namespace in ("default", "") and key.name == _NAME
        if not (is_default or key.resource == "namespaces") or self._due:
            return
        self._due = True
        # The repair waits until the write that caused the event is complete.
        asyncio.get_running_loop().call_soon(self._repair)

    def _repair(self) -> None:
        self._due = False
        self.reconcile()

    def _served(self, resource: Resource[Any]) -> Served | None:
        return self.catalog.find(resource.group, resource.version, resource.plural)

    def _ensure(
        self,
        resource: Resource[Any],
        namespace: str,
        name: str,
        wanted: Callable[[KubeObject], KubeObject],
    ) -> None:
        served = self._served(resource)
        if served is None:
            return
        try:
            if self.registry.store.get(Key(served.storage, namespace, name)) is None:
                obj = wanted({"metadata": {"name": name}})
                self.registry.create(served, namespace, obj, _OPTIONS)
            else:
                self.registry.update(served, namespace, name, wanted, _OPTIONS)
        except StatusError as error:
            log.error("cannot keep %s %s/%s: %s", resource.plural, namespace, name, error)

    def _ensure_api_service(self, wanted: KubeObject) -> None:
        """Creates the object; what a user changed stays. The aggregator writes its condition."""
        name = wanted["metadata"]["name"]
        self._ensure(APISERVICES, "", name, lambda obj: obj | wanted if len(obj) == 1 else obj)

    def _trust(self, obj: KubeObject) -> KubeObject:
        """How servers behind the aggregation layer check who calls them."""
        return obj | {"data": (obj.get("data") or {}) | dict(self.trust)}

    def _service_cidr(self, obj: KubeObject) -> KubeObject:
        return obj | {"spec": obj.get("spec") or {"cidrs": _cidrs(self.service_cidr)}}

    def _ensure_service_cidr_ready(self) -> None:
        """Sets the condition Ready once, while the object has the ranges of this server's flags."""
        served = self._served(SERVICECIDRS)
        if served is None:
            return
        stored = self.registry.store.get(Key(served.storage, "", _NAME))
        if stored is None:
            return
        conditions = stored.obj.get("status", {}).get("conditions") or ()
        has_condition = any(condition["type"] == "Ready" for condition in conditions)
        if stored.obj["spec"]["cidrs"] != _cidrs(self.service_cidr) or has_condition:
            return
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": timestamp(), "reason": ""}
        ready["message"] = "Kubernetes default Service CIDR is ready"
        wanted = {"conditions": [*conditions, ready]}
        self.registry.update(
            served,
            "",
            _NAME,
            lambda obj: obj | {"status": wanted},
            _OPTIONS,
            "status",
        )

    def _service(self, obj: KubeObject) -> KubeObject:
        labels = {"component": "apiserver", "provider": "kubernetes"}
        obj["metadata"]["labels"] = (obj["metadata"].get("labels") or {}) | labels
        port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port}
        address = first_address(self.service_cidr)
        default = {"type": "ClusterIP", "sessionAffinity": "None", "clusterIP": address}
        return obj | {"spec": (obj.get("spec") or default) | {"ports": [port]}}

    def _endpoints(self, obj: KubeObject) -> KubeObject:
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        obj["metadata"]["labels"] = (obj["metadata"].get("labels") or {}) | labels
        ports = [{"name": "https", "port": self.port, "protocol": "TCP"}]
        return obj | {"subsets": [{"addresses": [{"ip": self.advertise_address}], "ports": ports}]}

    def _slice(self, obj: KubeObject) -> KubeObject:
        labels = {"kubernetes.io/service-name": _NAME}
        obj["metadata"]["labels"] = (obj["metadata"].get("labels") or {}) | labels
        family = "IPv6" if ":" in self.advertise_address else "IPv4"
        return obj | {
            "addressType": family,
            "endpoints": [{"addresses": [self.advertise_address], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
        }
