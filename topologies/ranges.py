"""Address ranges of a cluster: which overlap, what packets then do, and how many nodes and pods
fit. Pure.

The arithmetic is upstream's: a node's part of the pod range by --node-cidr-mask-size
(nodeipam/ipam/cidrset, at most 16 bits between the two masks), at most 20 bits for Services
(kubeadm, kube-apiserver), and the first sixteenth of the Service range reserved for addresses that
are requested explicitly (KEP-3070).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

Range = IPv4Network | IPv6Network
#: Ranges by the name of their users; one range, or one of each family.
Named = Mapping[str, Sequence[Range]]

NODES = "nodes"
PODS = "pods"
SERVICES = "Services"
FAMILIES = {4: "IPv4", 6: "IPv6"}
#: kube-controller-manager's defaults, by IP version (--node-cidr-mask-size-ipv4, -ipv6).
MASK_SIZES = {4: 24, 6: 64}
#: The kubelet's default.
MAX_PODS = 110
_MASK_DISTANCE = 16
_SERVICE_BITS = 20

_TRANSLATED_FIRST = (
    "a ClusterIP is translated before routing, "
    "so a {} with such an address cannot be reached from there"
)
_CONSEQUENCES = {
    (
        NODES,
        PODS,
    ): "the route to a pod range is more specific than the one to the neighbours, so packets for a machine at such "
    "an address go to the pod network",
    (NODES, SERVICES): _TRANSLATED_FIRST.format("machine"),
    (PODS, SERVICES): _TRANSLATED_FIRST.format("pod"),
    (
        PODS,
        "",
    ): "nodes send packets for a machine there to the pod network, and machines there send packets for a pod to "
    "each other",
    (SERVICES, ""): _TRANSLATED_FIRST.format("machine"),
    (
        NODES,
        "",
    ): "nodes treat a machine there as a neighbour and resolve its address on their own link",
    ("", ""): "which of the two answers depends on the sender's location",
}


@dataclass(frozen=True)
class Overlap:
    """Two ranges with common addresses. names: their users. common: the smaller of the two
    ranges."""

    names: tuple[str, str]
    ranges: tuple[Range, Range]

    @property
    def common(self) -> Range:
        return max(self.ranges, key=lambda candidate: candidate.prefixlen)

    def __str__(self) -> str:
        first_name, second_name = self.names
        first_range, second_range = self.ranges
        return f"{second_name} {second_range} overlap {first_name} {first_range} in {self.common}: {self.consequence}"

    @property
    def consequence(self) -> str:
        known = (NODES, PODS, SERVICES)
        first, second = (name if name in known else "" for name in self.names)
        return _CONSEQUENCES.get((first, second)) or _CONSEQUENCES[second, first]


def overlaps(named: Named) -> Iterator[Overlap]:
    """Each pair of ranges with different names that have an address in common, in the order of the
    names."""
    flat = [(name, network) for name, networks in named.items() for network in networks]
    for (first_name, first), (second_name, second) in itertools.combinations(flat, 2):
        if first_name != second_name and first.overlaps(second):
            yield Overlap((first_name, second_name), (first, second))


@dataclass(frozen=True)
class PodRange:
    """A pod range that is cut into equal parts, one for each node. mask: the prefix length of a
    part."""

    whole: Range
    mask: int

    @property
    def allowed_masks(self) -> tuple[int, int]:
        """The shortest and the longest mask. A part needs two addresses besides the network and
        broadcast ones."""
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
        """The number of nodes that the range has parts for."""
        return 1 << max(0, self.mask - self.whole.prefixlen)

    @property
    def pods_of_a_node(self) -> int:
        """A part's addresses without the network and broadcast ones, and the first, which the
        node's bridge has."""
        return (1 << (self.whole.max_prefixlen - self.mask)) - (3 if self.whole.version == 4 else 2)

    def part(self, number: int) -> Range:
        """The number-th part, from 0, in the order of assignment."""
        first = int(self.whole.network_address) + (number << (self.whole.max_prefixlen - self.mask))
        address = IPv4Network if self.whole.version == 4 else IPv6Network
        return address((first, self.mask))


@dataclass(frozen=True)
class ServiceRange:
    """The range of ClusterIPs, with the rules of kubewire.components.apiserver's allocator (a test
    compares them)."""

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
        """All addresses but the network's and in IPv4 the broadcast one. default/kubernetes has the
        first."""
        return self.whole.num_addresses - (2 if self.whole.version == 4 else 1)

    @property
    def static_band(self) -> int:
        """The number of first addresses that are used for explicit requests only, while other
        addresses are free."""
        size = self.whole.num_addresses
        return 0 if size <= 16 else min(max(16, size // 16), 256)

    def address(self, number: int) -> str:
        return str(self.whole[number])


@dataclass(frozen=True)
class AddressPlan:
    """The requirements: ranges, a mask for each IP version, the numbers of nodes and of pods per
    node.

    others: name -> ranges of networks that the cluster must not collide with (a VPC, an office).
    """

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
        return [PodRange(whole, self.masks[whole.version]) for whole in self.pods]

    @property
    def service_ranges(self) -> list[ServiceRange]:
        return [ServiceRange(whole) for whole in self.services]

    def overlaps(self) -> list[Overlap]:
        return list(overlaps(self.named))

    def problems(self) -> list[str]:
        """All problems but overlaps, a sentence each."""
        return [*self._families(), *self._masks(), *self._room()]

    def _families(self) -> Iterator[str]:
        for name, networks in self.named.items():
            if name not in self.others and len({network.version for network in networks}) < len(
                networks
            ):
                yield f"{name}: two ranges of one IP family; dual-stack is one IPv4 and one IPv6 range"
        for name, networks, below, needed in (
            (PODS, self.pods, NODES, self.nodes),
            (SERVICES, self.services, PODS, self.pods),
        ):
            for network in networks:
                if network.version not in {other.version for other in needed}:
                    yield f"{name} have an {FAMILIES[network.version]} range, but {below} have none"

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
        for nodes in self.nodes:
            usable = nodes.num_addresses - 3 if nodes.version == 4 else nodes.num_addresses - 2
            if usable < self.node_count:
                room = f"nodes {nodes} has {usable:,} addresses besides its router's"
                yield f"{room}, but there are {self.node_count:,} nodes"


def parse(text: str) -> tuple[Range, ...]:
    """Parses one CIDR, or an IPv4 and an IPv6 one separated by a comma. Raises ValueError with a
    sentence."""
    return tuple(parse_one(part) for part in text.split(","))


def parse_one(text: str) -> Range:
    """Parses one CIDR. Raises ValueError with a sentence."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        try:
            wider = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not an IP range ({error})") from None
        raise ValueError(f"{text} has host bits set; the range it lies in is {wider}") from None
