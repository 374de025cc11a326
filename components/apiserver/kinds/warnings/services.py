"""Warnings about Services, endpoints, Ingresses and NetworkPolicies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubewire.components.apiserver.kinds.warnings.addresses import cidr_warnings, ip_warnings
from kubewire.components.kubeapi.resources import KubeObject

_HINTS = "service.kubernetes.io/topology-aware-hints"
_MODE = "service.kubernetes.io/topology-mode"
_INGRESS_CLASS = "kubernetes.io/ingress.class"
_SLICE_CONTROLLERS = (
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
)
_ENDPOINTS_MANAGED = "endpoints.kubernetes.io/managed-by"


def service(obj: KubeObject) -> list[str]:
    spec = obj.get("spec") or {}
    warnings = []
    if _HINTS in (obj["metadata"].get("annotations") or {}):
        warnings.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    if spec.get("clusterIP") not in (None, "", "None"):
        warnings += _each_ip("spec.clusterIPs", spec.get("clusterIPs") or ())
    warnings += _headless(spec)
    warnings += _each_ip("spec.externalIPs", spec.get("externalIPs") or ())
    warnings += _unused(spec)
    if spec.get("trafficDistribution") == "PreferClose":
        text = '"PreferClose" is deprecated; use "PreferSameZone"'
        warnings.append(f"spec.trafficDistribution: {text}")
    return warnings


def changed_service(new: KubeObject, old: KubeObject) -> list[str]:
    return service(new)


def _is_headless(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") == "ClusterIP" and spec.get("clusterIP") == "None"


def _headless(spec: Mapping[str, Any]) -> list[str]:
    if not _is_headless(spec):
        return []
    ignored = {
        "loadBalancerIP": bool(spec.get("loadBalancerIP")),
        "externalIPs": bool(spec.get("externalIPs")),
        "SessionAffinity": (spec.get("sessionAffinity") or "None") != "None",
    }
    return [
        f"spec.{name} is ignored for headless services" for name, given in ignored.items() if given
    ]


def _unused(spec: Mapping[str, Any]) -> list[str]:
    external = spec.get("type") == "ExternalName"
    warnings = []
    if spec.get("externalIPs") and not external and not _is_headless(spec):
        text = "is deprecated and may no longer be implemented in some clusters"
        warnings.append(f"spec.externalIPs {text}")
    if spec.get("loadBalancerIP"):
        warnings += ip_warnings("spec.loadBalancerIP", spec["loadBalancerIP"])
    for index, cidr in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        warnings += cidr_warnings(f"spec.loadBalancerSourceRanges[{index}]", cidr)
    if external and spec.get("externalIPs"):
        warnings.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if not external and spec.get("externalName"):
        warnings.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    return warnings


def _each_ip(path: str, addresses: Iterable[str]) -> list[str]:
    return [
        text
        for index, address in enumerate(addresses)
        for text in ip_warnings(f"{path}[{index}]", address)
    ]


def endpoints(obj: KubeObject) -> list[str]:
    if _ENDPOINTS_MANAGED in (obj["metadata"].get("labels") or {}):
        return []
    return [
        text
        for number, subset in enumerate(obj.get("subsets") or ())
        for field in ("addresses", "notReadyAddresses")
        for index, address in enumerate(subset.get(field) or ())
        for text in ip_warnings(f"subsets[{number}].{field}[{index}].ip", address.get("ip", ""))
    ]


def changed_endpoints(new: KubeObject, old: KubeObject) -> list[str]:
    return endpoints(new)


def endpoint_slice(obj: KubeObject) -> list[str]:
    if obj.get("addressType") == "FQDN":
        return ["spec.addressType: FQDN endpoints are deprecated"]
    labels = obj["metadata"].get("labels") or {}
    if labels.get("endpointslice.kubernetes.io/managed-by") in _SLICE_CONTROLLERS:
        return []
    return [
        text
        for number, endpoint in enumerate(obj.get("endpoints") or ())
        for text in _each_ip(f"endpoints[{number}].addresses", endpoint.get("addresses") or ())
    ]


def changed_endpoint_slice(new: KubeObject, old: KubeObject) -> list[str]:
    return endpoint_slice(new)


def ingress(obj: KubeObject) -> list[str]:
    if _INGRESS_CLASS not in (obj["metadata"].get("annotations") or {}):
        return []
    text = "is deprecated, please use 'spec.ingressClassName' instead"
    return [f'annotation "{_INGRESS_CLASS}" {text}']


def network_policy(obj: KubeObject) -> list[str]:
    spec = obj.get("spec") or {}
    warnings = []
    for direction, field in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(spec.get(direction) or ()):
            for index, peer in enumerate(rule.get(field) or ()):
                path = f"spec.{direction}[{number}].{field}[{index}].ipBlock"
                warnings += _block(peer.get("ipBlock") or {}, path)
    return warnings


def changed_network_policy(new: KubeObject, old: KubeObject) -> list[str]:
    return network_policy(new)


def _block(block: Mapping[str, Any], path: str) -> list[str]:
    warnings = cidr_warnings(f"{path}.cidr", block.get("cidr", ""))
    for index, cidr in enumerate(block.get("except") or ()):
        warnings += cidr_warnings(f"{path}.except[{index}]", cidr)
    return warnings
