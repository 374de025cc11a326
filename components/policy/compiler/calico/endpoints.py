"""What Calico's selectors can select besides pods: NetworkSet, GlobalNetworkSet and HostEndpoint of
projectcalico.org/v3, and the labels that Calico gives every pod by itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from kubewire.components.policy.compiler.calico.translate import (
    NAMESPACE_LABEL,
    SERVICE_ACCOUNT_LABEL,
)
from kubewire.components.policy.compiler.translation import InvalidPolicy, Translation
from kubewire.components.policy.model import ContainerPort, Endpoint, EndpointKind, ObjectKey

KubeObject = Mapping[str, Any]


def implicit_labels(namespace: str, service_account: str) -> dict[str, str]:
    """The labels of a pod that no manifest has: its namespace, its service account, and k8s as the
    orchestrator."""
    labels = {NAMESPACE_LABEL: namespace, "projectcalico.org/orchestrator": "k8s"}
    return labels | ({SERVICE_ACCOUNT_LABEL: service_account} if service_account else {})


def network_set(obj: KubeObject) -> Translation:
    """A NetworkSet, or a GlobalNetworkSet, which has no namespace. Raises InvalidPolicy."""
    metadata = obj["metadata"]
    namespace = str(metadata.get("namespace") or "")
    nets = [str(net) for net in (obj.get("spec") or {}).get("nets") or ()]
    labels = dict(metadata.get("labels") or {})
    endpoint = Endpoint(
        key=ObjectKey(str(obj["kind"]), namespace, str(metadata["name"])),
        kind=EndpointKind.NETWORK_SET,
        labels=labels | ({NAMESPACE_LABEL: namespace} if namespace else {}),
        addresses=tuple(_network(net, number) for number, net in enumerate(nets)),
    )
    return Translation(endpoints=(endpoint,))


def host_endpoint(obj: KubeObject) -> Translation:
    """A HostEndpoint: an interface of a node, or all of them (`*`). Raises InvalidPolicy."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    if not spec.get("node"):
        raise InvalidPolicy("spec.node: a host endpoint needs the name of its node")
    if not spec.get("interfaceName") and not spec.get("expectedIPs"):
        raise InvalidPolicy("spec: a host endpoint needs interfaceName or expectedIPs")
    endpoint = Endpoint(
        key=ObjectKey("HostEndpoint", "", str(metadata["name"])),
        kind=EndpointKind.HOST,
        labels=dict(metadata.get("labels") or {}),
        addresses=tuple(str(one) for one in spec.get("expectedIPs") or ()),
        node=str(spec["node"]),
        interface=str(spec.get("interfaceName") or ""),
        ports=tuple(
            ContainerPort(str(port["name"]), str(port["protocol"]), int(port["port"]))
            for port in spec.get("ports") or ()
        ),
    )
    return Translation(endpoints=(endpoint,))


def _network(net: str, number: int) -> str:
    try:
        return str(ipaddress.ip_network(net, strict=False))
    except ValueError as error:
        raise InvalidPolicy(f"spec.nets[{number}]: {error}") from error
