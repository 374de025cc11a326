"""The address ranges of a lab file: Network, with what ipFamily and clusterCIDR imply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kubewire.topologies.ranges import MASK_SIZES, NODES, PODS, SERVICES, Range, parse_one
from kubewire.topologies.shapes import OUTSIDE, OUTSIDE_IPV6

#: How a sentence names the ranges that every lab has outside of its cluster.
OUTSIDE_NAME = "what lies outside the cluster"
FAMILIES = {4: "IPv4", 6: "IPv6"}
#: The ranges of an ipFamily where a lab file gives none: those of IPv6 are kind's.
_RANGES = {
    "nodeCIDR": {4: "172.18.0.0/16", 6: "fd00:18::/64"},
    "clusterCIDR": {4: "10.244.0.0/16", 6: "fd00:10:244::/56"},
    "serviceCIDR": {4: "10.96.0.0/12", 6: "fd00:10:96::/112"},
}
_VERSIONS = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6), "dual-ipv6-first": (6, 4)}


@dataclass(frozen=True)
class Network:
    """Address ranges, under the names of the lab file (which are Kubernetes' own).

    ipFamily gives the ranges that a lab file leaves out; it is that of clusterCIDR. Each of the
    three is one CIDR, or an IPv4 and an IPv6 one with a comma between them, the primary family's
    first (as --cluster-cidr and --service-cluster-ip-range take them). nodeCIDRMaskSize is for one
    family, the other two are for dual-stack, where it is None; not given in a lab file they are 24
    in IPv4, 64 in IPv6. allowOverlap: ranges may overlap each other and what lies outside the
    cluster, to see what becomes of it.
    """

    ipFamily: Literal["ipv4", "ipv6", "dual", "dual-ipv6-first"] = "ipv4"
    nodeCIDR: str = "172.18.0.0/16"
    clusterCIDR: str = "10.244.0.0/16"
    nodeCIDRMaskSize: int | None = 24
    nodeCIDRMaskSizeIPv4: int | None = None
    nodeCIDRMaskSizeIPv6: int | None = None
    serviceCIDR: str = "10.96.0.0/12"
    serviceNodePortRange: str = "30000-32767"
    clusterDomain: str = "cluster.local"
    allowOverlap: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Network:
        """With the ranges of ipFamily, and the masks that fit the families of clusterCIDR, where the
        file says none."""
        given = data.get("ipFamily") or family_of(data.get("clusterCIDR", cls.clusterCIDR))
        ranges = {
            key: ",".join(of[version] for version in _VERSIONS[given])
            for key, of in _RANGES.items()
        }
        if "ipFamily" not in data and given != "ipv4":
            ranges = {}  # a file with ranges of another family gives all of them
        data = {"ipFamily": given, **ranges, **data}
        versions = [
            6 if ":" in part else 4 for part in data.get("clusterCIDR", cls.clusterCIDR).split(",")
        ]
        own = {f"nodeCIDRMaskSize{FAMILIES[version]}": MASK_SIZES[version] for version in versions}
        if len(versions) > 1:
            return cls(**{"nodeCIDRMaskSize": None, **own, **data})
        one = None if own.keys() & data.keys() else MASK_SIZES[versions[0]]
        return cls(**{"nodeCIDRMaskSize": one, **data})

    def mask_size(self, version: int) -> int:
        """Of each node's part of the pod range of this IP version."""
        own = self.nodeCIDRMaskSizeIPv4 if version == 4 else self.nodeCIDRMaskSizeIPv6
        return own or self.nodeCIDRMaskSize or MASK_SIZES[version]

    @property
    def requires(self) -> tuple[str, ...]:
        """What the ranges need of the kernel beyond what every lab does, by doctor's names."""
        return ("ipv6",) if ":" in self.nodeCIDR else ()

    def named(self) -> dict[str, tuple[Range, ...]]:
        """The ranges by what they are for, and those outside of the cluster. Raises ValueError."""
        of = {NODES: self.nodeCIDR, PODS: self.clusterCIDR, SERVICES: self.serviceCIDR}
        parsed = {
            name: tuple(parse_one(part) for part in text.split(",")) for name, text in of.items()
        }
        return parsed | {OUTSIDE_NAME: (OUTSIDE, OUTSIDE_IPV6)}

    @property
    def ip_families(self) -> str:
        """ "IPv4", "IPv6", or "IPv4/IPv6" and "IPv6/IPv4" by the order of clusterCIDR."""
        return "/".join(FAMILIES[parse_one(part).version] for part in self.clusterCIDR.split(","))


def family_of(cluster: str) -> str:
    """ipFamily by the order of clusterCIDR; of what is no such range, that of IPv4."""
    versions = tuple(6 if ":" in part else 4 for part in cluster.split(","))
    return next((name for name, order in _VERSIONS.items() if order == versions), "ipv4")
