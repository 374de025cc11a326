"""Defaults of Services (SetDefaults_Service of k8s.io/kubernetes/pkg/apis/core/v1/defaults.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject

DEFAULT_AFFINITY_SECONDS = 10800


def default_service(service: KubeObject) -> None:
    spec = service.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    _session_affinity(spec)
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or ():
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def externally_accessible(spec: Mapping[str, Any]) -> bool:
    """Whether clients outside the cluster can reach the Service."""
    kind = spec.get("type")
    if kind == "ClusterIP":
        return bool(spec.get("externalIPs"))
    return kind in ("LoadBalancer", "NodePort")


def _session_affinity(spec: dict[str, Any]) -> None:
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if client.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {
                "clientIP": {"timeoutSeconds": DEFAULT_AFFINITY_SECONDS},
            }
