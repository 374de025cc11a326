"""What is wrong with a lab file's address ranges beyond their form: ranges that overlap or lack a
counterpart in their IP family, masks that cannot fit, ports out of bounds.

Each problem is the path of its key and a sentence. The rules are those of kube-apiserver,
kube-controller-manager and of the kernel; where upstream has a text for one, it is upstream's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from kubewire.scenarios.engine.file.addresses import FAMILIES, OUTSIDE_NAME, Network, family_of
from kubewire.scenarios.engine.file.document import KeyPath
from kubewire.topologies.ranges import (
    NODES,
    PODS,
    SERVICES,
    PodRange,
    Range,
    ServiceRange,
    overlaps,
    parse_one,
)
from kubewire.topologies.shapes import OUTSIDE, OUTSIDE_IPV6

#: Ranges whose addresses upstream refuses as endpoints (ValidateNonSpecialIP) or no kernel routes;
#: RFC 6890.
_SPECIAL: dict[Range, str] = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
    IPv6Network("::/96"): "unspecified, loopback and IPv4-compatible",
    IPv6Network("::ffff:0:0/96"): "IPv4-mapped",
    IPv6Network("fe80::/10"): "link-local",
    IPv6Network("ff00::/8"): "multicast",
}


def parsed(
    network: Network,
) -> tuple[dict[str, tuple[Range, ...]], list[tuple[KeyPath, str]]]:
    """The ranges by their keys, and what is wrong with those that are no ranges."""
    ranges = {}
    wrong: list[tuple[KeyPath, str]] = []
    for key in ("nodeCIDR", "clusterCIDR", "serviceCIDR"):
        try:
            ranges[key] = tuple(parse_one(part) for part in getattr(network, key).split(","))
        except ValueError as error:
            wrong.append((("network", key), str(error)))
    return ranges, wrong


def problems(
    network: Network, ranges: Mapping[str, Sequence[Range]], nodes: int
) -> Iterator[tuple[KeyPath, str]]:
    """ranges: those of parsed(). nodes: how many there are, each of which needs its part of the pod
    range."""
    yield from _one_of_a_family(network, ranges)
    cluster = network.clusterCIDR
    if "clusterCIDR" in ranges and network.ipFamily != family_of(cluster):
        yield (
            ("network", "ipFamily"),
            f"{network.ipFamily} is not that of clusterCIDR {cluster}; leave one out",
        )
    yield from _overlaps(network, ranges)
    yield from _family_order(ranges)
    yield from _masks(network, nodes, ranges)
    yield from _ports(network.serviceNodePortRange)


def _one_of_a_family(
    network: Network, ranges: Mapping[str, Sequence[Range]]
) -> Iterator[tuple[KeyPath, str]]:
    for key, several in ranges.items():
        if len({one.version for one in several}) < len(several):
            yield (
                ("network", key),
                f"{getattr(network, key)} has two ranges of one IP family; dual-stack is one IPv4 and one IPv6 range",
            )


def _overlaps(
    network: Network, ranges: Mapping[str, Sequence[Range]]
) -> Iterator[tuple[KeyPath, str]]:
    names = {"nodeCIDR": NODES, "clusterCIDR": PODS, "serviceCIDR": SERVICES}
    named = {names[key]: networks for key, networks in ranges.items()} | {
        OUTSIDE_NAME: (OUTSIDE, OUTSIDE_IPV6)
    }
    keys = {name: key for key, name in names.items()}
    for found in () if network.allowOverlap else overlaps(named):
        (first, second), (one, other) = found.names, found.ranges
        cure = "make them disjoint, or say network.allowOverlap: true to see it"
        if second == OUTSIDE_NAME:
            yield (
                ("network", keys[first]),
                f"{one} overlaps {other}, which lies outside the cluster: {found.consequence}; {cure}",
            )
        else:
            yield (
                ("network", keys[second]),
                f"{other} overlaps {keys[first]} {one}: {found.consequence}; {cure}",
            )
    for key, several in ranges.items():
        for one, (special, what) in itertools.product(several, _SPECIAL.items()):
            if one.overlaps(special):
                yield (
                    ("network", key),
                    f"{one} overlaps {special} ({what}); take a range of ordinary addresses",
                )


def _family_order(ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    """Services need pods of their family, pods nodes; and default/kubernetes leads to the node that
    serves the API."""
    versions = {key: [network.version for network in networks] for key, networks in ranges.items()}
    for key, below in (("clusterCIDR", "nodeCIDR"), ("serviceCIDR", "clusterCIDR")):
        for version in versions.get(key, ()):
            if version not in versions.get(below, (version,)):
                yield (
                    ("network", key),
                    f"has an {FAMILIES[version]} range, but {below} has none; add one there",
                )
    node, service = versions.get("nodeCIDR"), versions.get("serviceCIDR")
    if node and service and node[0] != service[0] and service[0] in node:
        # kube-apiserver's text (pkg/controlplane/apiserver/options).
        first, nodes = ranges["serviceCIDR"][0], ranges["nodeCIDR"][0]
        text = f'service IP family "{first}" must match public address family "{nodes}"'
        yield (
            ("network", "serviceCIDR"),
            f"{text}: begin nodeCIDR and serviceCIDR with the same family",
        )


def _masks(
    network: Network, nodes: int, ranges: Mapping[str, Sequence[Range]]
) -> Iterator[tuple[KeyPath, str]]:
    clusters = ranges.get("clusterCIDR", ())
    yield from _mask_keys(network, [cluster.version for cluster in clusters])
    for cluster in clusters:
        yield from _node_mask(network, nodes, cluster, len(clusters) > 1)
    for service in ranges.get("serviceCIDR", ()):
        if not ServiceRange(service).fits:
            allowed = "/{} to /{}".format(*ServiceRange(service).allowed_masks)
            yield (
                ("network", "serviceCIDR"),
                f"/{service.prefixlen} is not possible; allowed masks: {allowed}",
            )


def _mask_keys(network: Network, versions: Sequence[int]) -> Iterator[tuple[KeyPath, str]]:
    """Which of the three may be given (setNodeCIDRMaskSizes of cmd/kube-controller-manager/app)."""
    own = {4: network.nodeCIDRMaskSizeIPv4, 6: network.nodeCIDRMaskSizeIPv6}
    if len(versions) > 1 and network.nodeCIDRMaskSize is not None:
        text = "is for one IP family; with two take nodeCIDRMaskSizeIPv4 and nodeCIDRMaskSizeIPv6"
        yield ("network", "nodeCIDRMaskSize"), text
    for version, size in own.items():
        key = f"nodeCIDRMaskSize{FAMILIES[version]}"
        if size is not None and versions and version not in versions:
            yield ("network", key), f"clusterCIDR has no {FAMILIES[version]} range"
        elif size is not None and network.nodeCIDRMaskSize is not None and len(versions) == 1:
            yield ("network", key), "is not allowed if nodeCIDRMaskSize is set"


def _node_mask(
    network: Network, nodes: int, cluster: Range, dual: bool
) -> Iterator[tuple[KeyPath, str]]:
    size = network.mask_size(cluster.version)
    own = dual or getattr(network, f"nodeCIDRMaskSize{FAMILIES[cluster.version]}") is not None
    key: KeyPath = ("network", "nodeCIDRMaskSize" + (FAMILIES[cluster.version] if own else ""))
    pods = PodRange(cluster, size)
    if not pods.fits:
        shortest, longest = pods.allowed_masks
        yield (
            key,
            f"/{size} does not fit in clusterCIDR {cluster}; allowed: {shortest} to {longest}",
        )
    elif pods.parts < nodes:
        yield (
            key,
            f"{cluster} holds {pods.parts} ranges of /{size}, but there are {nodes} nodes (control plane included)",
        )


def _ports(text: str) -> Iterator[tuple[KeyPath, str]]:
    low, high = (int(part) for part in text.split("-"))
    if not 1 <= low <= high <= 65535:
        yield (
            ("network", "serviceNodePortRange"),
            f"{text}: must be LOW-HIGH with 1 <= LOW <= HIGH <= 65535",
        )
