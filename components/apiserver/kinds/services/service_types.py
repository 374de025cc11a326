"""Drops fields when the type of a Service changes.

This is dropTypeDependentFields of pkg/registry/core/service/strategy.go. A field is dropped only
if the new type does not use it and the client did not change it. A client that sets it
deliberately gets a validation error instead.
"""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver.kinds.services.service_defaults import externally_accessible
from kubewire.components.apiserver.kinds.services.service_validation import needs_health_check
from kubewire.components.kubeapi.resources import KubeObject

_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


def drop_unused_fields(new_service: KubeObject, old_service: KubeObject) -> None:
    new = new_service.setdefault("spec", {})
    old = old_service.get("spec") or {}
    if old.get("type") != "ExternalName" and new.get("type") == "ExternalName":
        _drop_cluster_ips(new, old)
    ends = old.get("type") in _WITH_NODE_PORTS and new.get("type") not in _WITH_NODE_PORTS
    if ends and _node_ports(new) <= _node_ports(old):
        for port in new.get("ports") or ():
            port.pop("nodePort", None)
    if needs_health_check(old) and not needs_health_check(new):
        _drop_same(new, old, "healthCheckNodePort")
    if old.get("type") == "LoadBalancer" and new.get("type") != "LoadBalancer":
        _drop_same(new, old, "allocateLoadBalancerNodePorts")
        _drop_same(new, old, "loadBalancerClass")
    if externally_accessible(old) and not externally_accessible(new):
        _drop_same(new, old, "externalTrafficPolicy")
    if new.get("type") != "LoadBalancer":
        new_service["status"] = {**(new_service.get("status") or {}), "loadBalancer": {}}


def _drop_cluster_ips(new: dict[str, Any], old: dict[str, Any]) -> None:
    keys = ("clusterIP", "clusterIPs")
    if all(new.get(key) == old.get(key) for key in keys):
        for key in keys:
            new.pop(key, None)
    _drop_same(new, old, "ipFamilies")
    _drop_same(new, old, "ipFamilyPolicy")


def _drop_same(new: dict[str, Any], old: dict[str, Any], key: str) -> None:
    if new.get(key) == old.get(key):
        new.pop(key, None)


def _node_ports(spec: dict[str, Any]) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
