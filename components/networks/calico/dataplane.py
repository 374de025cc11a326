"""What a node's kernel should have: pools, nodes and blocks become routes, neighbours, FDB entries, sets, chains. Pure.

    own block        blackhole 10.244.17.128/26 proto 80
    another's        10.244.201.64/26 via TUNNEL dev vxlan.calico onlink proto 80     neighbour TUNNEL, FDB entry
    ... CrossSubnet  10.244.201.64/26 via NODE dev eth0 onlink proto 80               on the same segment
    borrowed         10.244.17.140/32 via ...                                         as its borrower's blocks

(felix/dataplane/linux/{vxlan_mgr,route_mgr,masq_mgr}.go; felix/calc/vxlan_resolver.go for the MAC.)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Any

from kubewire.components.kernel import ipset
from kubewire.components.kernel.forwarding import FdbEntry, Forwarding, Neighbour, Route
from kubewire.components.kernel.iproute import text
from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.networks.calico.plugin import block

DEVICE, VNI, PORT = "vxlan.calico", 4096, 4789
#: Of Felix's routes (RouteTableProtocol).
PROTOCOL = "80"
#: Outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8 bytes.
OVERHEAD = 50
NODE_ADDRESS, TUNNEL_ADDRESS = "projectcalico.org/IPv4Address", "projectcalico.org/IPv4VXLANTunnelAddr"
IPIP_ADDRESS = "projectcalico.org/IPv4IPIPTunnelAddr"
AS_NUMBER, CLUSTER_ID = "projectcalico.org/ASNumber", "projectcalico.org/RouteReflectorClusterID"
ALL_POOLS, MASQUERADED_POOLS = "all-ipam-pools", "masq-ipam-pools"


@dataclass(frozen=True)
class Tunnel:
    """A way to encapsulate: its device, its key in an IPPool, where a node's address is kept; overhead in bytes."""

    device: str
    mode: str
    annotation: str
    handle: str
    attribute: str
    overhead: int


#: (node/pkg/allocateip/allocateip.go)
VXLAN = Tunnel(DEVICE, "vxlanMode", TUNNEL_ADDRESS, "vxlan-tunnel-addr-", "vxlanTunnelAddress", OVERHEAD)
IPIP = Tunnel("tunl0", "ipipMode", IPIP_ADDRESS, "ipip-tunnel-addr-", "ipipTunnelAddress", 20)
VXLAN6 = Tunnel(
    "vxlan-v6.calico",
    "vxlanMode",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "vxlan-v6-tunnel-addr-",
    "vxlanV6TunnelAddress",
    OVERHEAD + 20,
)


@dataclass(frozen=True)
class Family:
    """What one IP version has of its own: felix keeps two of everything."""

    version: int
    annotation: str
    vxlan: Tunnel
    tunnels: tuple[Tunnel, ...]

    @property
    def bits(self) -> int:
        return 32 if self.version == 4 else 128

    def set_name(self, name: str) -> str:
        return f"cali{self.version}0{name}"

    def has(self, text: str) -> bool:
        """An address or a range of it."""
        return block.is_ipv6(text) == (self.version == 6)


IPV4 = Family(4, NODE_ADDRESS, VXLAN, (VXLAN, IPIP))
IPV6 = Family(6, "projectcalico.org/IPv6Address", VXLAN6, (VXLAN6,))
FAMILIES = (IPV4, IPV6)


@dataclass(frozen=True)
class Node:
    """As its annotations say, of one family. address: with the length of its network ("172.18.0.3/16"); tunnel
    (VXLAN's) and ipip "" without one; as_number 0: the cluster's; cluster_id: of a route reflector."""

    name: str
    address: str
    tunnel: str = ""
    ipip: str = ""
    as_number: int = 0
    cluster_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def family(self) -> Family:
        return IPV6 if ":" in self.address else IPV4

    def address_in(self, tunnel: Tunnel) -> str:
        return self.ipip if tunnel is IPIP else self.tunnel

    def with_address(self, tunnel: Tunnel, address: str) -> Node:
        return replace(self, ipip=address) if tunnel is IPIP else replace(self, tunnel=address)

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]

    @property
    def mac(self) -> str:
        """Of its VXLAN device: 66 and the beginning of a hash of its name, so that all know it."""
        known = self.name if self.family is IPV4 else f"{self.name}-v6"
        return ":".join(f"{byte:02x}" for byte in b"f" + sha1(known.encode()).digest()[:5])

    def is_neighbour(self, other: Node) -> bool:
        return ipaddress.ip_address(other.ip) in ipaddress.ip_interface(self.address).network


class Unreadable(ValueError):
    """An object of the API that cannot be followed as it is; str() names it, the field and what is wrong."""


def usable(pools: Iterable[KubeObject]) -> list[KubeObject]:
    """Without those that have no network in spec.cidr, which Calico treats as if they were deleted."""
    return [pool for pool in pools if block.is_network(pool["spec"]["cidr"])]


def node_of(obj: KubeObject, family: Family = IPV4) -> Node | None:
    """None until its calico-node has said where it is, and while what the annotation says is no address."""
    annotations = obj["metadata"].get("annotations") or {}
    address = annotations.get(family.annotation, "")
    if not _is_address(address, family):
        return None
    number = annotations.get(AS_NUMBER, "")
    return Node(
        obj["metadata"]["name"],
        address,
        annotations.get(family.vxlan.annotation, ""),
        annotations.get(IPIP_ADDRESS, "") if IPIP in family.tunnels else "",
        int(number) if number.isdecimal() and len(number) < 11 else 0,
        annotations.get(CLUSTER_ID, ""),
        tuple(sorted((obj["metadata"].get("labels") or {}).items())),
    )


def _is_address(text: str, family: Family) -> bool:
    """172.18.0.3/16, or without a length."""
    try:
        return ipaddress.ip_interface(text).version == family.version
    except ValueError:
        return False


def is_after(one: str, other: str) -> bool:
    """Of two IP addresses."""
    return int(ipaddress.ip_address(one)) > int(ipaddress.ip_address(other))


def _number(spec: Mapping[str, Any], key: str) -> int:
    """Not negative; 0 without one."""
    try:
        return max(int(spec.get(key) or 0), 0)
    except (TypeError, ValueError):
        return 0


@dataclass(frozen=True)
class Settings:
    """Of FelixConfiguration `default`, what is followed. MTUs in bytes; 0: the outer interface's, less the overhead
    (https://docs.tigera.io/calico/latest/reference/resources/felixconfig)."""

    vni: int = VNI
    port: int = PORT
    vxlan_mtu: int = 0
    vxlan_mtu_v6: int = 0
    ipip_mtu: int = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Settings:
        """A value that is no number counts as not given, as Felix has it."""
        return cls(
            _number(spec, "vxlanVNI") or VNI,
            _number(spec, "vxlanPort") or PORT,
            _number(spec, "vxlanMTU"),
            _number(spec, "vxlanMTUV6"),
            _number(spec, "ipipMTU") or _number(spec, "ipInIpMtu"),
        )

    def mtu(self, tunnel: Tunnel, outer: int) -> int:
        """Of a tunnel's device. The kernel cuts the MTU of a new VXLAN device to what the outer interface carries, and
        refuses to set a larger one later."""
        most = outer - tunnel.overhead
        wanted = {VXLAN: self.vxlan_mtu, VXLAN6: self.vxlan_mtu_v6, IPIP: self.ipip_mtu}[tunnel] or most
        return wanted if tunnel is IPIP else min(wanted, most)


def way(destination: str, gateway: str, device: str) -> Route:
    """A route of Felix; its gateway is taken to be on the device's link, as tunnels and other nodes are."""
    return Route.via(destination, gateway, device, onlink=True, protocol=PROTOCOL)


def blackhole(destination: str) -> Route:
    """What is in a block of this node and has no pod goes nowhere, and not by the default route to another node."""
    return Route(destination, protocol=PROTOCOL)


def entries(
    own: Node, nodes: Mapping[str, Node], pools: Sequence[KubeObject], blocks: Iterable[KubeObject], outer: str
) -> Forwarding:
    """outer: the device between nodes."""
    routes: set[Route] = set()
    peers: set[Node] = set()
    family, device = own.family, own.family.vxlan.device
    for destination, owner in owned(blocks):
        if not family.has(destination):
            continue
        mode = vxlan_mode(pools, destination)
        if owner == own.name:
            # Without VXLAN the block is announced by BGP, and BIRD has the blackhole.
            if not destination.endswith(f"/{family.bits}") and mode != "Never":
                routes.add(blackhole(destination))
        elif (peer := nodes.get(owner)) is not None and mode != "Never":
            if mode == "CrossSubnet" and own.is_neighbour(peer):
                routes.add(way(destination, peer.ip, outer))
            elif peer.tunnel:
                routes.add(way(destination, peer.tunnel, device))
                peers.add(peer)
    return Forwarding(
        frozenset(routes),
        frozenset(Neighbour(peer.tunnel, peer.mac, device) for peer in peers),
        frozenset(FdbEntry(peer.mac, peer.ip, device) for peer in peers),
    )


def owned(blocks: Iterable[KubeObject]) -> Iterator[tuple[str, str]]:
    """Each range and the node it is on: blocks by affinity, and the addresses that another node has borrowed."""
    for one in blocks:
        affine = block.host(one)
        if affine:
            yield one["spec"]["cidr"], affine
        for address, _, attributes in block.allocations(one):
            holder = attributes.get("node", "")
            if holder and holder != affine:
                yield f"{address}/{block.bits(address)}", holder


def pool_of(pools: Iterable[KubeObject], cidr: str) -> KubeObject | None:
    return next((pool for pool in pools if block.contains(pool["spec"]["cidr"], cidr)), None)


def mode_of(pool: KubeObject, tunnel: Tunnel) -> str:
    return str(pool["spec"].get(tunnel.mode) or "Never")


def vxlan_mode(pools: Iterable[KubeObject], cidr: str) -> str:
    pool = pool_of(pools, cidr)
    return mode_of(pool, VXLAN) if pool else "Never"


def wants(pools: Iterable[KubeObject], tunnel: Tunnel) -> bool:
    """Of its own family."""
    family = IPV6 if tunnel is VXLAN6 else IPV4
    return any(mode_of(pool, tunnel) != "Never" for pool in pools if family.has(pool["spec"]["cidr"]))


def ipsets(pools: Sequence[KubeObject], family: Family = IPV4) -> str:
    """`ipset restore -exist` input: all pools, and those that are masqueraded."""
    specs = [pool["spec"] for pool in pools if family.has(pool["spec"]["cidr"])]
    members = {
        ALL_POOLS: [spec["cidr"] for spec in specs],
        MASQUERADED_POOLS: [spec["cidr"] for spec in specs if spec.get("natOutgoing") and not spec.get("disabled")],
    }
    kind = f"hash:net family inet{'6' if family is IPV6 else ''} maxelem 1048576"
    lines: list[str] = []
    for name, cidrs in ((family.set_name(name), cidrs) for name, cidrs in members.items()):
        lines += ipset.replacement(name, kind, cidrs)
    return text(lines)


def masquerades(pools: Sequence[KubeObject], family: Family) -> bool:
    specs = [pool["spec"] for pool in pools if family.has(pool["spec"]["cidr"])]
    return any(spec.get("natOutgoing") and not spec.get("disabled") for spec in specs)


def rules(pools: Sequence[KubeObject], tunnels: Iterable[Tunnel], family: Family = IPV4) -> Ruleset:
    """Our chains of table nat, and the jump at the head of POSTROUTING."""
    postrouting = ["-j cali-nat-outgoing"]
    postrouting += [
        f"-o {tunnel.device} -m addrtype ! --src-type LOCAL --limit-iface-out "
        "-m addrtype --src-type LOCAL -j MASQUERADE --random-fully"
        for tunnel in tunnels
    ]
    outgoing = []
    if masquerades(pools, family):
        outgoing.append(
            f"-m set --match-set {family.set_name(MASQUERADED_POOLS)} src "
            f"-m set ! --match-set {family.set_name(ALL_POOLS)} dst -j MASQUERADE --random-fully"
        )
    chains = (
        Chain("nat", "cali-POSTROUTING", tuple(postrouting)),
        Chain("nat", "cali-nat-outgoing", tuple(outgoing)),
    )
    return Ruleset(chains, (Lead("nat", "POSTROUTING", ("-j cali-POSTROUTING",), at_head=True),))
