"""A node's membership in the overlay, stored in its Node object as podCIDR and the annotations
flannel.alpha.coreos.com (https://github.com/flannel-io/flannel/tree/master/pkg/subnet/kube)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.networks.flannel.netconf import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_ADDRESSES: dict[int, Callable[[str], Address]] = {
    4: ipaddress.IPv4Address,
    6: ipaddress.IPv6Address,
}
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
    def backend_v6_data(self) -> str:
        return f"{self.prefix}/backend-v6-data"

    @property
    def public_ipv6(self) -> str:
        return f"{self.prefix}/public-ipv6"

    def data_of(self, version: int) -> str:
        return self.backend_data if version == 4 else self.backend_v6_data

    def address_of(self, version: int) -> str:
        return self.public_ip if version == 4 else self.public_ipv6

    def overwrite_of(self, version: int) -> str:
        """An administrator's annotation; it overrides the interface's address."""
        return f"{self.address_of(version)}-overwrite"


@dataclass(frozen=True)
class Lease:
    """A node's pod subnet, the address that packets for it are sent to, and with vxlan the MAC of
    its VTEP ("" else).

    All values are of one IP family; a dual-stack node has two leases.
    """

    node: str
    subnet: Network
    public_ip: Address
    backend_type: str
    vni: int = 0
    vtep_mac: str = ""


@dataclass(frozen=True)
class Member:
    """The values of one family that this node announces."""

    version: int
    public_ip: str
    vni: int = 0
    vtep_mac: str = ""


def pod_cidr(node: KubeObject, version: int = 4) -> Network | None:
    """The node's podCIDR of a family; None until the node IPAM controller assigns it. Raises
    ValueError."""
    spec = node.get("spec") or {}
    cidrs = spec.get("podCIDRs") or [spec["podCIDR"]] if spec.get("podCIDR") else []
    if len(cidrs) > 2:
        name = node["metadata"]["name"]
        raise ValueError(f'node "{name}" pod cidrs should be IPv4/IPv6 only or dualstack')
    networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
    return next((network for network in networks if network.version == version), None)


def annotations_of(node: KubeObject) -> dict[str, str]:
    return node["metadata"].get("annotations") or {}


def lease_of(node: KubeObject, keys: Annotations, version: int = 4) -> Lease | None:
    """None if flannel does not run on the node (yet). Raises ValueError if its annotations are
    invalid."""
    notes = annotations_of(node)
    subnet = pod_cidr(node, version)
    if notes.get(keys.managed) != "true" or subnet is None:
        return None
    try:
        data = json.loads(notes.get(keys.data_of(version)) or "null") or {}
        return Lease(
            node=node["metadata"]["name"],
            subnet=subnet,
            public_ip=_ADDRESSES[version](notes.get(keys.address_of(version), "")),
            backend_type=notes.get(keys.backend_type, ""),
            vni=int(data.get("VNI", 0)),
            vtep_mac=str(data.get("VtepMAC", "")).lower(),
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"annotation {keys.data_of(version)}: {error}") from error


def stored_mac(node: KubeObject, keys: Annotations, version: int = 4) -> str:
    """The VTEP MAC that an earlier flanneld announced. Re-using it keeps the other nodes' entries
    valid."""
    try:
        data = json.loads(annotations_of(node).get(keys.data_of(version)) or "null") or {}
        mac = str(data.get("VtepMAC", "")).lower()
    except (ValueError, AttributeError):
        return ""
    return mac if len(mac) == 17 else ""


def wanted_annotations(
    keys: Annotations, current: dict[str, str], backend_type: str, members: Iterable[Member]
) -> dict[str, str]:
    """The annotations of this node's flanneld. An -overwrite annotation overrides the interface's
    address."""
    wanted = {keys.managed: "true", keys.backend_type: backend_type}
    for member in members:
        data = {"VNI": member.vni, "VtepMAC": member.vtep_mac} if member.vtep_mac else None
        wanted[keys.data_of(member.version)] = json.dumps(data, separators=(",", ":"))
        overwrite = current.get(keys.overwrite_of(member.version))
        wanted[keys.address_of(member.version)] = overwrite or member.public_ip
    return wanted


def slim(node: KubeObject) -> KubeObject:
    """Only the fields that flanneld reads: in a large lab a hundred agents each store a hundred
    nodes."""
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
