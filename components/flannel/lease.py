"""A node's place in the overlay, kept in its Node object: podCIDR and the flannel.alpha.coreos.com annotations
(https://github.com/flannel-io/flannel/tree/master/pkg/subnet/kube)."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

from components.machinery.resources import KubeObject

DEFAULT_PREFIX = "flannel.alpha.coreos.com"


@dataclass(frozen=True)
class Annotations:
    """The annotation keys under a prefix (--kube-annotation-prefix)."""

    prefix: str = DEFAULT_PREFIX

    @property
    def managed(self) -> str:
        return f"{self.prefix}/kube-subnet-manager"

    @property
    def backend_type(self) -> str:
        return f"{self.prefix}/backend-type"

    @property
    def backend_data(self) -> str:
        return f"{self.prefix}/backend-data"

    @property
    def public_ip(self) -> str:
        return f"{self.prefix}/public-ip"

    @property
    def public_ip_overwrite(self) -> str:
        return f"{self.prefix}/public-ip-overwrite"


@dataclass(frozen=True)
class Lease:
    """A node's pod subnet, the address its packets are sent to, and for vxlan its VTEP's MAC ("" otherwise)."""

    node: str
    subnet: ipaddress.IPv4Network
    public_ip: ipaddress.IPv4Address
    backend_type: str
    vni: int = 0
    vtep_mac: str = ""


def pod_cidr(node: KubeObject) -> ipaddress.IPv4Network | None:
    """The node's IPv4 podCIDR, None while the node IPAM controller has not given one. Raises ValueError."""
    spec = node.get("spec") or {}
    cidrs = spec.get("podCIDRs") or [spec["podCIDR"]] if spec.get("podCIDR") else []
    if len(cidrs) > 2:
        name = node["metadata"]["name"]
        raise ValueError(f'node "{name}" pod cidrs should be IPv4/IPv6 only or dualstack')
    networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
    return next((network for network in networks if isinstance(network, ipaddress.IPv4Network)), None)


def annotations_of(node: KubeObject) -> dict[str, str]:
    return node["metadata"].get("annotations") or {}


def lease_of(node: KubeObject, keys: Annotations) -> Lease | None:
    """None for a node that flannel does not run on (yet). Raises ValueError for annotations that make no sense."""
    notes = annotations_of(node)
    subnet = pod_cidr(node)
    if notes.get(keys.managed) != "true" or subnet is None:
        return None
    try:
        data = json.loads(notes.get(keys.backend_data) or "null") or {}
        return Lease(
            node=node["metadata"]["name"],
            subnet=subnet,
            public_ip=ipaddress.IPv4Address(notes.get(keys.public_ip, "")),
            backend_type=notes.get(keys.backend_type, ""),
            vni=int(data.get("VNI", 0)),
            vtep_mac=str(data.get("VtepMAC", "")).lower(),
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"annotation {keys.backend_data}: {error}") from error


def stored_mac(node: KubeObject, keys: Annotations) -> str:
    """The VTEP MAC an earlier flanneld on this node announced; re-used, so that the peers' entries stay right."""
    try:
        data = json.loads(annotations_of(node).get(keys.backend_data) or "null") or {}
        mac = str(data.get("VtepMAC", "")).lower()
    except (ValueError, AttributeError):
        return ""
    return mac if len(mac) == 17 else ""


def wanted_annotations(
    keys: Annotations, current: dict[str, str], public_ip: str, backend_type: str, vni: int = 0, vtep_mac: str = ""
) -> dict[str, str]:
    """What this node's flanneld announces. A public-ip-overwrite annotation wins over the interface's address."""
    data = json.dumps({"VNI": vni, "VtepMAC": vtep_mac}, separators=(",", ":")) if vtep_mac else "null"
    return {
        keys.managed: "true",
        keys.backend_type: backend_type,
        keys.backend_data: data,
        keys.public_ip: current.get(keys.public_ip_overwrite) or public_ip,
    }


def slim(node: KubeObject) -> KubeObject:
    """Only what flanneld reads: a hundred agents keep a hundred nodes each."""
    metadata = node["metadata"]
    notes = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if "/backend-" in key or ("/public-ip" in key or "/kube-subnet-manager" in key)
    }
    spec = node.get("spec") or {}
    kept = {key: metadata[key] for key in ("name", "uid", "resourceVersion") if key in metadata}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": kept | {"annotations": notes},
        "spec": {key: spec[key] for key in ("podCIDR", "podCIDRs") if key in spec},
    }
