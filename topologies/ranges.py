"""Address ranges of a cluster: what overlaps and what becomes of the packets then, how much fits. Pure.

The arithmetic is upstream's: a node's part of the pod range by --node-cidr-mask-size (nodeipam/ipam/cidrset, at most
16 bits between the two masks), at most 20 bits for Services (kubeadm, kube-apiserver), the first sixteenth of the
Service range for addresses that are asked for (KEP-3070).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

Range = IPv4Network | IPv6Network
#: Ranges under the names of what has them, one or two (one of each family) each.
Named = Mapping[str, Sequence[Range]]

NODES = "nodes"
PODS = "pods"
SERVICES = "Services"
FAMILIES = {4: "IPv4", 6: "IPv6"}
#: kube-controller-manager's, by IP version (--node-cidr-mask-size-ipv4, -ipv6).
MASK_SIZES = {4: 24, 6: 64}
#: The kubelet's.
MAX_PODS = 110
_MASK_DISTANCE = 16
_SERVICE_BITS = 20

_TRANSLATED_FIRST = (
    "a ClusterIP is translated before anything is routed, so a {} with such an address is not reached there"
)
_CONSEQUENCES = {
    (
        NODES,
        PODS,
    ): "the route to a pod range is more specific than the one to the neighbours, so what is meant for a machine "
    "at such an address goes to the pod network",
    (NODES, SERVICES): _TRANSLATED_FIRST.format("machine"),
    (PODS, SERVICES): _TRANSLATED_FIRST.format("pod"),
    (
        PODS,
        "",
    ): "nodes send what is meant for a machine there to the pod network, and machines there send what is meant "
    "for a pod to each other",
    (SERVICES, ""): _TRANSLATED_FIRST.format("machine"),
    (NODES, ""): "nodes take a machine there for a neighbour and ask for it on their own link",
    ("", ""): "which of the two is reached depends on where one stands",
}


@dataclass(frozen=True)
class Overlap:
    """Two ranges with addresses in common. names: what they are for; common: the smaller of the two."""

    names: tuple[str, str]
    ranges: tuple[Range, Range]

    @property
    def common(self) -> Range:
        return max(self.ranges, key=lambda one: one.prefixlen)

    def __str__(self) -> str:
        (first, second) = self.names
        (one, other) = self.ranges
        return f"{second} {other} overlap {first} {one} in {self.common}: {self.consequence}"

    @property
    def consequence(self) -> str:
        known = (NODES, PODS, SERVICES)
        first, second = (name if name in known else "" for name in self.names)
        return _CONSEQUENCES.get((first, second)) or _CONSEQUENCES[second, first]


def overlaps(named: Named) -> Iterator[Overlap]:
    """Each pair of ranges of different names that have an address in common, in the order of the names."""
    flat = [(name, one) for name, several in named.items() for one in several]
    for (first, one), (second, other) in itertools.combinations(flat, 2):
        if first != second and one.overlaps(other):
            yield Overlap((first, second), (one, other))


@dataclass(frozen=True)
class PodRange:
    """A pod range that is cut into equal parts, one for each node. mask: prefix length of a part."""

    whole: Range
    mask: int

    @property
    def allowed_masks(self) -> tuple[int, int]:
        """Shortest and longest; a part must have two addresses besides its own and the broadcast address."""
        return self.whole.prefixlen, min(
            self.whole.max_prefixlen - 2,
            self.whole.prefixlen + _MASK_DISTANCE,
        )

    @property
    def fits(self) -> bool:
        shortest, longest = self.allowed_masks
        return shortest <= self.mask <= longest

    @property
    def parts(self) -> int:
        """How many nodes it is enough for."""
        return 1 << max(0, self.mask - self.whole.prefixlen)

    @property
    def pods_of_a_node(self) -> int:
        """Addresses of a part but for its own, the broadcast one and the first, which the node's bridge has."""
        return (1 << (self.whole.max_prefixlen - self.mask)) - (3 if self.whole.version == 4 else 2)

    def part(self, number: int) -> Range:
        """The number-th part, from 0, in the order in which they are given out."""
        first = int(self.whole.network_address) + (number << (self.whole.max_prefixlen - self.mask))
        address = IPv4Network if self.whole.version == 4 else IPv6Network
        return address((first, self.mask))


@dataclass(frozen=True)
class ServiceRange:
    """The range of ClusterIPs. As kubewire.components.apiserver's allocator gives them out (a test compares)."""

    whole: Range

    @property
    def allowed_masks(self) -> tuple[int, int]:
        """kubeadm's limits (ValidateServiceSubnetSize): at most 20 bits, and ten addresses."""
        return self.whole.max_prefixlen - _SERVICE_BITS, self.whole.max_prefixlen - 4

    @property
    def fits(self) -> bool:
        shortest, longest = self.allowed_masks
        return shortest <= self.whole.prefixlen <= longest

    @property
    def addresses(self) -> int:
        """All but its own, and in IPv4 the broadcast one; default/kubernetes has the first."""
        return self.whole.num_addresses - (2 if self.whole.version == 4 else 1)

    @property
    def static_band(self) -> int:
        """How many of the first addresses are left to who asks for one, while others are free."""
        size = self.whole.num_addresses
        return 0 if size <= 16 else min(max(16, size // 16), 256)

    def address(self, number: int) -> str:
        return str(self.whole[number])


@dataclass(frozen=True)
class AddressPlan:
    """What is asked for: ranges, a mask for each IP version, how many nodes and pods of each. others: name -> ranges of
    networks that the cluster must not collide with (a VPC, an office)."""

    nodes: tuple[Range, ...]
    pods: tuple[Range, ...]
    services: tuple[Range, ...]
    masks: Mapping[int, int] = field(default_factory=lambda: dict(MASK_SIZES))
    node_count: int = 4
    max_pods: int = MAX_PODS
    others: Named = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Sequence[Range]]:
        return {NODES: self.nodes, PODS: self.pods, SERVICES: self.services, **self.others}

    @property
    def pod_ranges(self) -> list[PodRange]:
        return [PodRange(one, self.masks[one.version]) for one in self.pods]

    @property
    def service_ranges(self) -> list[ServiceRange]:
        return [ServiceRange(one) for one in self.services]

    def overlaps(self) -> list[Overlap]:
        return list(overlaps(self.named))

    def problems(self) -> list[str]:
        """What cannot work but for overlaps, a sentence each."""
        return [*self._families(), *self._masks(), *self._room()]

    def _families(self) -> Iterator[str]:
        for name, several in self.named.items():
            if name not in self.others and len({one.version for one in several}) < len(several):
                yield f"{name}: two ranges of one IP family; dual-stack is one IPv4 and one IPv6 range"
        for name, has, below, needed in (
            (PODS, self.pods, NODES, self.nodes),
            (SERVICES, self.services, PODS, self.pods),
        ):
            for one in has:
                if one.version not in {other.version for other in needed}:
                    yield f"{name} have an {FAMILIES[one.version]} range, but {below} have none"

    def _masks(self) -> Iterator[str]:
        for pods in self.pod_ranges:
            if not pods.fits:
                shortest, longest = pods.allowed_masks
                yield f"a node's part /{pods.mask} does not fit in {pods.whole}; allowed: /{shortest} to /{longest}"
        for services in self.service_ranges:
            if not services.fits:
                shortest, longest = services.allowed_masks
                yield f"Services {services.whole}: allowed masks are /{shortest} to /{longest}"

    def _room(self) -> Iterator[str]:
        for pods in self.pod_ranges:
            if not pods.fits:
                continue
            if pods.parts < self.node_count:
                room = f"{pods.whole} holds {pods.parts:,} parts of /{pods.mask}"
                yield f"{room}, but there are {self.node_count:,} nodes"
            if pods.pods_of_a_node < self.max_pods:
                mask = pods.whole.max_prefixlen - (self.max_pods + 2).bit_length()
                room = f"a node's part /{pods.mask} has {pods.pods_of_a_node:,} addresses for pods"
                yield f"{room}, but up to {self.max_pods:,} may come (maxPods); take /{mask} or lower maxPods"
        for one in self.nodes:
            usable = one.num_addresses - 3 if one.version == 4 else one.num_addresses - 2
            if usable < self.node_count:
                room = f"nodes {one} has {usable:,} addresses besides its router's"
                yield f"{room}, but there are {self.node_count:,} nodes"


def parse(text: str) -> tuple[Range, ...]:
    """One CIDR, or an IPv4 and an IPv6 one with a comma between them. Raises ValueError with a sentence."""
    return tuple(parse_one(part) for part in text.split(","))


def parse_one(text: str) -> Range:
    """Raises ValueError with a sentence."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        try:
            wider = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not an IP range ({error})") from None
        raise ValueError(f"{text} has host bits set; the range it lies in is {wider}") from None
