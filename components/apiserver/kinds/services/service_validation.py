"""Validates Services (ValidateService and ValidateServiceUpdate).

The source is k8s.io/kubernetes/pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.addresses import (
    validate_legacy_cidr,
    validate_legacy_ip,
    validate_non_special_ip,
)
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    in_range,
    invalid,
    labels,
    not_supported,
    one_of,
    port_number_or_name,
    required,
)
from kubewire.components.apiserver.kinds.services.service_defaults import externally_accessible
from kubewire.components.apiserver.kinds.services.service_families import (
    is_headless,
    validate_cluster_ips,
    validate_cluster_ips_change,
    validate_ip_families_change,
)
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_POLICIES = ("Cluster", "Local")
_TRAFFIC_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_MOST_AFFINITY_SECONDS = 86400
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
_ONLY_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"

Spec = Mapping[str, Any]


def validate_create(service: KubeObject) -> list[FieldError]:
    spec: Spec = service.get("spec") or {}
    annotations = service["metadata"].get("annotations") or {}
    return [
        *_topology_annotations(annotations),
        *_type_dependent(spec),
        *_ports(spec),
        *labels("spec.selector", spec.get("selector")),
        *_session_affinity(spec),
        *validate_cluster_ips(spec),
        *_external_ips(spec),
        *one_of("spec.type", spec.get("type"), _TYPES),
        *_port_numbers(spec),
        *_source_ranges(spec, annotations),
        *_load_balancer(spec),
        *_external_traffic(spec),
        *_internal_traffic(spec),
        *_traffic_distribution(spec),
    ]


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    after = new.get("spec") or {}
    before = old.get("spec") or {}
    errors = [
        *validate_cluster_ips_change(after, before),
        *validate_ip_families_change(after, before),
    ]
    both_balanced = after.get("type") == before.get("type") == "LoadBalancer"
    if both_balanced and after.get("loadBalancerClass") != before.get("loadBalancerClass"):
        errors.append(
            invalid(
                "spec.loadBalancerClass",
                after.get("loadBalancerClass"),
                "may not change once set",
            )
        )
    both_check = needs_health_check(before) and needs_health_check(after)
    if both_check and after.get("healthCheckNodePort", 0) != before.get("healthCheckNodePort", 0):
        errors.append(forbidden("spec.healthCheckNodePort", names.IMMUTABLE))
    return errors + validate_create(new)


def needs_health_check(spec: Spec) -> bool:
    """Whether the Service has a health check port.

    On it each node says whether it has local endpoints.
    """
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    status = new.get("status") or {}
    return validate_load_balancer_status(
        status.get("loadBalancer") or {},
        "status.loadBalancer",
        new.get("spec") or {},
    )


def validate_load_balancer_status(
    status: Mapping[str, Any],
    path: str,
    spec: Spec | None = None,
) -> list[FieldError]:
    """Validates status.loadBalancer of an Ingress, or of a Service when spec is given."""
    ingresses = status.get("ingress") or []
    errors = []
    if spec is not None and spec.get("type") != "LoadBalancer" and ingresses:
        text = "may only be used when `spec.type` is 'LoadBalancer'"
        errors.append(forbidden(f"{path}.ingress", text))
    for index, ingress in enumerate(ingresses):
        at = f"{path}.ingress[{index}]"
        if ingress.get("ip"):
            errors += validate_legacy_ip(f"{at}.ip", ingress["ip"])
        if spec is not None:
            errors += _ip_mode(ingress, at)
        if ingress.get("hostname"):
            errors += by_rule(names.dns1123_subdomain, f"{at}.hostname", ingress["hostname"])
            if validate_legacy_ip("", ingress["hostname"]) == []:
                text = "must be a DNS name, not an IP address"
                errors.append(invalid(f"{at}.hostname", ingress["hostname"], text))
    return errors


def _ip_mode(ingress: Mapping[str, Any], at: str) -> list[FieldError]:
    mode = ingress.get("ipMode")
    if ingress.get("ip") and mode is None:
        return [required(f"{at}.ipMode", "must be specified when `ip` is set")]
    if mode is not None and not ingress.get("ip"):
        return [forbidden(f"{at}.ipMode", "may not be specified when `ip` is not set")]
    if mode is not None and mode not in ("Proxy", "VIP"):
        return [not_supported(f"{at}.ipMode", mode, ("Proxy", "VIP"))]
    return []


def _topology_annotations(annotations: Mapping[str, str]) -> list[FieldError]:
    mode = annotations.get(_TOPOLOGY_MODE)
    hints = annotations.get(_TOPOLOGY_HINTS)
    if mode is None or hints is None or mode == hints:
        return []
    text = f"must match annotations[{_TOPOLOGY_HINTS}] when both are specified"
    return [invalid(f"metadata.annotations[{_TOPOLOGY_MODE}]", mode, text)]


def _type_dependent(spec: Spec) -> list[FieldError]:
    errors = []
    kind = spec.get("type")
    headless = is_headless(spec)
    if not spec.get("ports") and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless:
        errors.append(
            invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"),
        )
    if kind == "ExternalName":
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key):
                errors.append(forbidden(f"spec.{key}", "may not be set for ExternalName services"))
        errors += _external_name(spec)
    return errors


def _external_name(spec: Spec) -> list[FieldError]:
    """Validates a CNAME, which may end in a dot."""
    name = str(spec.get("externalName") or "").removesuffix(".")
    if not name:
        return [required("spec.externalName")]
    return by_rule(names.dns1123_subdomain, "spec.externalName", name)


def _ports(spec: Spec) -> list[FieldError]:
    ports = spec.get("ports") or []
    errors = []
    seen = set[str]()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name and len(ports) > 1:
            errors.append(required(f"{at}.name"))
        if name:
            errors += by_rule(names.dns1123_label, f"{at}.name", name)
            if name in seen:
                errors.append(duplicate(f"{at}.name", name))
            seen.add(name)
        errors += _port(port, at)
    return errors


def _port(port: Mapping[str, Any], at: str) -> list[FieldError]:
    errors = in_range(f"{at}.port", port.get("port", 0), 1, 65535)
    errors += one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS)
    errors += port_number_or_name(f"{at}.targetPort", port.get("targetPort", 0))
    if port.get("appProtocol") is not None:
        errors += by_rule(names.qualified_name, f"{at}.appProtocol", port["appProtocol"])
    return errors


def _port_numbers(spec: Spec) -> list[FieldError]:
    """Forbids node ports on ClusterIP Services, and duplicates.

    Ports are equal when protocol and number are.
    """
    ports = list(enumerate(spec.get("ports") or []))
    errors = []
    if spec.get("type") == "ClusterIP":
        text = "may not be used when `type` is 'ClusterIP'"
        given = [index for index, port in ports if port.get("nodePort")]
        errors += [forbidden(f"spec.ports[{index}].nodePort", text) for index in given]
    seen = set[tuple[Any, Any]]()
    for index, port in ports:
        key = (port.get("protocol"), port.get("nodePort"))
        if port.get("nodePort") and key in seen:
            errors.append(duplicate(f"spec.ports[{index}].nodePort", port["nodePort"]))
        seen.add(key)
    seen = set()
    for index, port in ports:
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            errors.append(duplicate(f"spec.ports[{index}]", _port_identity(port)))
        seen.add(key)
    return errors


def _port_identity(port: Mapping[str, Any]) -> dict[str, Any]:
    """A core.ServicePort with only protocol and port, as Go marshals the internal type."""
    return {
        "Name": "",
        "Protocol": port.get("protocol", ""),
        "AppProtocol": None,
        "Port": port.get("port", 0),
        "TargetPort": 0,
        "NodePort": 0,
    }


def _session_affinity(spec: Spec) -> list[FieldError]:
    affinity = spec.get("sessionAffinity")
    config = spec.get("sessionAffinityConfig")
    errors = one_of("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    path = "spec.sessionAffinityConfig"
    if affinity == "None" and config is not None:
        errors.append(forbidden(path, "must not be set when session affinity is None"))
    if affinity == "ClientIP":
        errors += _client_ip_affinity(config, path)
    return errors


def _client_ip_affinity(config: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    if config is None:
        return [required(path, "when session affinity type is ClientIP")]
    if config.get("clientIP") is None:
        return [required(f"{path}.clientIP", "when session affinity type is ClientIP")]
    seconds = config["clientIP"].get("timeoutSeconds")
    if seconds is None:
        return [
            required(f"{path}.clientIP.timeoutSeconds", "when session affinity type is ClientIP"),
        ]
    if 0 < seconds <= _MOST_AFFINITY_SECONDS:
        return []
    text = f"must be greater than 0 and less than {_MOST_AFFINITY_SECONDS}"
    return [invalid(f"{path}.clientIP.timeoutSeconds", seconds, text)]


def _external_ips(spec: Spec) -> list[FieldError]:
    errors = []
    for index, address in enumerate(spec.get("externalIPs") or []):
        at = f"spec.externalIPs[{index}]"
        errors += validate_legacy_ip(at, address) or validate_non_special_ip(at, address)
    return errors


def _source_ranges(spec: Spec, annotations: Mapping[str, str]) -> list[FieldError]:
    """Validates the field or, without it, the annotation that preceded it; surrounding blanks are
    allowed.
    """
    errors = []
    balanced = spec.get("type") == "LoadBalancer"
    if spec.get("loadBalancerSourceRanges"):
        # Upstream's errors do spell this path with a capital L.
        path = "spec.LoadBalancerSourceRanges"
        if not balanced:
            errors.append(forbidden(path, _ONLY_LOAD_BALANCER))
        for index, value in enumerate(spec["loadBalancerSourceRanges"]):
            errors += validate_legacy_cidr(f"{path}[{index}]", value.strip())
    elif _SOURCE_RANGES in annotations:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        if not balanced:
            errors.append(forbidden(path, _ONLY_LOAD_BALANCER))
        for value in filter(None, annotations[_SOURCE_RANGES].strip().split(",")):
            errors += validate_legacy_cidr(path, value.strip())
    return errors


def _load_balancer(spec: Spec) -> list[FieldError]:
    balanced = spec.get("type") == "LoadBalancer"
    allocates = spec.get("allocateLoadBalancerNodePorts")
    name = spec.get("loadBalancerClass")
    errors = []
    if allocates is not None and not balanced:
        errors.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_LOAD_BALANCER))
    if allocates is None and balanced:
        errors.append(required("allocateLoadBalancerNodePorts"))
    if name is not None:
        if balanced:
            errors += by_rule(names.qualified_name, "spec.loadBalancerClass", name)
        else:
            errors.append(forbidden("spec.loadBalancerClass", _ONLY_LOAD_BALANCER))
    return errors


def _external_traffic(spec: Spec) -> list[FieldError]:
    path = "spec.externalTrafficPolicy"
    policy = spec.get("externalTrafficPolicy")
    errors = []
    if externally_accessible(spec):
        errors += one_of(path, policy, _POLICIES)
    elif policy:
        errors.append(invalid(path, policy, "may only be set for externally-accessible services"))
    path = "spec.healthCheckNodePort"
    port = spec.get("healthCheckNodePort") or 0
    if not needs_health_check(spec):
        if port:
            text = "may only be set when `type` is 'LoadBalancer'"
            text += " and `externalTrafficPolicy` is 'Local'"
            errors.append(invalid(path, port, text))
    elif not port:
        errors.append(required(path))
    else:
        errors += in_range(path, port, 1, 65535)
    return errors


def _internal_traffic(spec: Spec) -> list[FieldError]:
    path = "spec.internalTrafficPolicy"
    policy = spec.get("internalTrafficPolicy")
    if policy is None:
        needs_policy = spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer")
        return [required(path)] if needs_policy else []
    return [] if policy in _POLICIES else [not_supported(path, policy, _POLICIES)]


def _traffic_distribution(spec: Spec) -> list[FieldError]:
    value = spec.get("trafficDistribution")
    if value is None or value in _TRAFFIC_DISTRIBUTIONS:
        return []
    return [not_supported("spec.trafficDistribution", value, _TRAFFIC_DISTRIBUTIONS)]
