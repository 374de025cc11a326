"""The desired state of a node's kernel, computed from pools, nodes and blocks. Pure.

A Calico node is a router. There is no bridge and no subnet of its own: each pod is a /32 route to
its veth, and each block of another node is one route to that node. Blocks keep the table small
although addresses are assigned one by one, and a route for a borrowed address wins over its block
because its prefix is longer.

    own block        blackhole 10.244.17.128/26 proto 80      packets to unused addresses must not leave the node
    other's block    10.244.201.64/26 via TUNNEL dev vxlan.calico onlink proto 80     neighbour TUNNEL, FDB entry
    ... CrossSubnet  10.244.201.64/26 via NODE dev eth0 onlink proto 80               on the same segment
    borrowed         10.244.17.140/32 via ...                      the same way as the borrower's own blocks

VXLAN neither floods nor learns: TUNNEL is the other node's tunnel address from its annotation, the
MAC of its VTEP is a hash of its name that every node can compute, and the FDB entry maps that MAC
to the node's address. Felix marks its routes with protocol 80, so it finds and deletes exactly its
own. POSTROUTING masquerades packets from a pool with natOutgoing to any address outside all pools;
ipsets hold the pools, so that the rules stay the same when pools change. FORWARD accepts what pods
send and receive, also where its policy is DROP.

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

DEVICE = "vxlan.calico"
VNI = 4096
PORT = 4789
#: The protocol number of Felix's routes (RouteTableProtocol).
PROTOCOL = "80"
#: Outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8 bytes.
OVERHEAD = 50
NODE_ADDRESS = "projectcalico.org/IPv4Address"
TUNNEL_ADDRESS = "projectcalico.org/IPv4VXLANTunnelAddr"
IPIP_ADDRESS = "projectcalico.org/IPv4IPIPTunnelAddr"
AS_NUMBER = "projectcalico.org/ASNumber"
CLUSTER_ID = "projectcalico.org/RouteReflectorClusterID"
ALL_POOLS = "all-ipam-pools"
MASQUERADED_POOLS = "masq-ipam-pools"
#: The first bit of Felix's iptablesMarkMask, 0xffff0000: policy has accepted the packet.
_ACCEPTED = "0x10000/0x10000"
_MARK_ACCEPTED = f"-j MARK --set-xmark {_ACCEPTED}"
_ACCEPT_MARKED = (
    '-m comment --comment "Policy explicitly accepted packet." '
    f"-m mark --mark {_ACCEPTED} -j ACCEPT"
)


@dataclass(frozen=True)
class Tunnel:
    """A kind of encapsulation.

    mode is its key in an IPPool. annotation is where the Node object keeps the node's tunnel
    address; handle and attribute identify that address in IPAM. overhead is in bytes.
    """

    device: str
    mode: str
    annotation: str
    handle: str
    attribute: str
    overhead: int


#: The names follow node/pkg/allocateip/allocateip.go.
VXLAN = Tunnel(
    DEVICE,
    "vxlanMode",
    TUNNEL_ADDRESS,
    "vxlan-tunnel-addr-",
    "vxlanTunnelAddress",
    OVERHEAD,
)
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
    """The names of one IP version. Felix has a separate set of devices, sets and annotations for
    each."""

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
        """True if the address or range is of this IP version."""
        return block.is_ipv6(text) == (self.version == 6)


IPV4 = Family(4, NODE_ADDRESS, VXLAN, (VXLAN, IPIP))
IPV6 = Family(6, "projectcalico.org/IPv6Address", VXLAN6, (VXLAN6,))
FAMILIES = (IPV4, IPV6)


@dataclass(frozen=True)
class Node:
    """A node as its annotations describe it, in one family.

    address has the length of its network ("172.18.0.3/16"). tunnel (of VXLAN) and ipip are "" if
    the node has no such address. as_number 0 means the cluster's. cluster_id is set on a route
    reflector.
    """

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
        """The MAC of its VXLAN device: 66 and the start of a hash of its name, so every node can
        compute it."""
        known = self.name if self.family is IPV4 else f"{self.name}-v6"
        return ":".join(f"{byte:02x}" for byte in b"f" + sha1(known.encode()).digest()[:5])

    def is_neighbour(self, other: Node) -> bool:
        return ipaddress.ip_address(other.ip) in ipaddress.ip_interface(self.address).network


class Unreadable(ValueError):
    """An API object that cannot be used as it is. str() names the object, the field and the
    fault."""


def usable(pools: Iterable[KubeObject]) -> list[KubeObject]:
    """The pools whose spec.cidr is a network. Calico treats others as if they were deleted."""
    return [pool for pool in pools if block.is_network(pool["spec"]["cidr"])]


def node_of(obj: KubeObject, family: Family = IPV4) -> Node | None:
    """None until its calico-node has announced a valid address."""
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
    """Tells whether text is an address of the family, with or without a prefix length."""
    try:
        return ipaddress.ip_interface(text).version == family.version
    except ValueError:
        return False


def is_after(first: str, second: str) -> bool:
    """Compares two IP addresses as numbers."""
    return int(ipaddress.ip_address(first)) > int(ipaddress.ip_address(second))


def _number(spec: Mapping[str, Any], key: str) -> int:
    """The value as a number that is not negative; 0 if it is missing or not a number."""
    try:
        return max(int(spec.get(key) or 0), 0)
    except (TypeError, ValueError):
        return 0


@dataclass(frozen=True)
class Settings:
    """The supported fields of FelixConfiguration `default`. MTUs are in bytes; 0 means the outer
    interface's MTU less the overhead
    (https://docs.tigera.io/calico/latest/reference/resources/felixconfig)."""

    vni: int = VNI
    port: int = PORT
    vxlan_mtu: int = 0
    vxlan_mtu_v6: int = 0
    ipip_mtu: int = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Settings:
        """A value that is not a number counts as missing, as in Felix."""
        return cls(
            _number(spec, "vxlanVNI") or VNI,
            _number(spec, "vxlanPort") or PORT,
            _number(spec, "vxlanMTU"),
            _number(spec, "vxlanMTUV6"),
            _number(spec, "ipipMTU") or _number(spec, "ipInIpMtu"),
        )

    def mtu(self, tunnel: Tunnel, outer: int) -> int:
        """The MTU of a tunnel's device. The kernel limits the MTU of a new VXLAN device to what
        fits the outer interface, and refuses a larger one later."""
        most = outer - tunnel.overhead
        wanted = {VXLAN: self.vxlan_mtu, VXLAN6: self.vxlan_mtu_v6, IPIP: self.ipip_mtu}[
            tunnel
        ] or most
        return wanted if tunnel is IPIP else min(wanted, most)


def way(destination: str, gateway: str, device: str) -> Route:
    """A route of Felix. onlink: the gateway is reachable on the device, although no address of it
    says so."""
    return Route.via(destination, gateway, device, onlink=True, protocol=PROTOCOL)


def blackhole(destination: str) -> Route:
    """Drops packets to addresses of this node's block that no pod has, which the default route
    would send away."""
    return Route(destination, protocol=PROTOCOL)


def entries(
    own: Node,
    nodes: Mapping[str, Node],
    pools: Sequence[KubeObject],
    blocks: Iterable[KubeObject],
    outer: str,
) -> Forwarding:
    """The routes, neighbours and FDB entries for the family of own. outer: the device between the
    nodes."""
    routes: set[Route] = set()
    peers: set[Node] = set()
    family = own.family
    device = own.family.vxlan.device
    for destination, owner in owned(blocks):
        if not family.has(destination):
            continue
        mode = vxlan_mode(pools, destination)
        if owner == own.name:
            # Without VXLAN, BIRD announces the block and adds the blackhole route.
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
    """(range, node) for each block with an affinity and for each address that another node
    borrowed."""
    for ipam_block in blocks:
        affine = block.host(ipam_block)
        if affine:
            yield ipam_block["spec"]["cidr"], affine
        for address, _, attributes in block.allocations(ipam_block):
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
    """True if a pool of the tunnel's family uses the tunnel."""
    family = IPV6 if tunnel is VXLAN6 else IPV4
    return any(
        mode_of(pool, tunnel) != "Never" for pool in pools if family.has(pool["spec"]["cidr"])
    )


def ipsets(pools: Sequence[KubeObject], family: Family = IPV4) -> str:
    """`ipset restore -exist` input for two sets: all pools, and the pools that are masqueraded."""
    specs = [pool["spec"] for pool in pools if family.has(pool["spec"]["cidr"])]
    members = {
        ALL_POOLS: [spec["cidr"] for spec in specs],
        MASQUERADED_POOLS: [
            spec["cidr"] for spec in specs if spec.get("natOutgoing") and not spec.get("disabled")
        ],
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
    """Calico's chains of nat and filter, the jumps at the heads of POSTROUTING and FORWARD, and the
    accept at the end of FORWARD.

    What a pod sends or receives is marked as accepted, because no policy selects it. The accept
    itself comes last, so that kube-proxy's rules may still refuse the packet; it counts where
    FORWARD's policy is DROP.
    """
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
            f"-m set ! --match-set {family.set_name(ALL_POOLS)} dst -j MASQUERADE --random-fully",
        )
    chains = (
        Chain("nat", "cali-POSTROUTING", tuple(postrouting)),
        Chain("nat", "cali-nat-outgoing", tuple(outgoing)),
        Chain(
            "filter", "cali-FORWARD", tuple(f"{way} cali+ {_MARK_ACCEPTED}" for way in ("-i", "-o"))
        ),
    )
    leads = (
        Lead("nat", "POSTROUTING", ("-j cali-POSTROUTING",), at_head=True),
        Lead("filter", "FORWARD", ("-j cali-FORWARD",), at_head=True),
        Lead("filter", "FORWARD", (_ACCEPT_MARKED,)),
    )
    return Ruleset(chains, leads)
