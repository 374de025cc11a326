"""The desired state of a node's kernel: bridge, VXLAN device, flood entries, chains. Pure.

    pod eth0 -- vethwepl... -- [ bridge weave, 10.32.0.1/12 ] -- vxlan-6784 == UDP 6784 == each established peer

All pods are on one Ethernet segment that spans the nodes, so an address may move to another node
without any route. The VXLAN device works like a switch: it floods broadcasts and frames to unknown
MACs to the peers in its flood entries (FDB entries of MAC 00:00:00:00:00:00), and learns from
received frames which MAC is behind which node (RFC 7348, section 4.2).

A segment with several nodes must not have loops, and Linux runs no spanning tree here. Instead the
port of the VXLAN device is isolated, as is the veth for datagrams: a frame from one peer is
delivered to local pods only and never sent on to another peer. Hence every two peers need a
connection of their own.

A packet that enters or leaves the segment is routed by a node, and nat POSTROUTING masquerades it
in both directions: other hosts have no route to pods, and a reply must return through the node that
has the connection's conntrack entry. (github.com/weaveworks/weave: net/bridge.go, net/expose.go.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, summarize_address_range

from kubewire.components.kernel import ipset
from kubewire.components.kernel.iproute import text
from kubewire.components.kernel.iptables import Chain, Lead, Ruleset
from kubewire.components.kernel.vxlan import VxlanDevice
from kubewire.components.networks.weave import ipsec
from kubewire.components.networks.weave.space import Range

BRIDGE = "weave"
DEVICE = "vxlan-6784"
PORT = 6784
VNI = 6784
#: A veth for frames sent as datagrams: one end is a port of the bridge, weave-net reads and writes
#: at the other.
BRIDGE_END = "vethwe-bridge"
PCAP = "vethwe-pcap"
#: Fits into the smallest likely network (GCE, 1460 bytes) with VXLAN's 50 bytes and ESP's 34.
DEFAULT_MTU = 1376
NO_MASQUERADE = "weaver-no-masq-local"
#: With its quotes escaped, as iptables-save prints them.
_NOTE = r"NOTE: this must go before \'-j KUBE-FORWARD\'"
#: Chains of weave-npc, which it fills.
NPC_MAIN, NPC_EGRESS = "WEAVE-NPC", "WEAVE-NPC-EGRESS"
FLOOD = "00:00:00:00:00:00"


def peer_name(seed: str) -> str:
    """The peer's name is the MAC of its bridge: locally administered, and the same after every
    start."""
    digest = bytearray(sha256(seed.encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return ":".join(f"{byte:02x}" for byte in digest)


@dataclass(frozen=True)
class Device:
    """name: the peer's name. outer, local: the node's interface and its address."""

    name: str
    outer: str
    local: str
    mtu: int = DEFAULT_MTU


def make_bridge(device: Device) -> str:
    """`ip -batch` input."""
    return (
        f"link add {BRIDGE} address {device.name} mtu {device.mtu} type bridge mcast_snooping 0\n"
        f"link set dev {BRIDGE} mtu {device.mtu} up\n"
    )


def vxlan_device(device: Device) -> VxlanDevice:
    """The wanted VXLAN device, a port of the bridge. It has no outer interface: the routing table
    decides how each peer is reached."""
    return VxlanDevice(
        name=DEVICE,
        vni=VNI,
        port=PORT,
        mtu=device.mtu,
        local=device.local,
        link="",
        mac="",
        learning=True,
        master=BRIDGE,
        udpcsum=True,
    )


def isolate_vxlan() -> str:
    """`ip -batch` input. The port is isolated, like the veth for datagrams: frames of one peer
    never go to another peer."""
    return f"link set dev {DEVICE} type bridge_slave isolated on\n"


def make_veth(device: Device) -> str:
    """`ip -batch` input. The port is isolated, like the VXLAN device: frames of one peer never go
    to another peer."""
    return (
        f"link add {BRIDGE_END} mtu {device.mtu} type veth peer name {PCAP} mtu {device.mtu}\n"
        f"link set dev {PCAP} addrgenmode none up\n"
        f"link set dev {BRIDGE_END} addrgenmode none master {BRIDGE} up\n"
        f"link set dev {BRIDGE_END} type bridge_slave isolated on\n"
    )


def flood_difference(now: Iterable[str], wanted: Iterable[str]) -> str:
    """`bridge -batch` input that changes the peers to which broadcasts and frames to unknown MACs
    are sent."""
    before = set(now)
    after = set(wanted)
    lines = [
        f"fdb append {FLOOD} dev {DEVICE} dst {ip} self permanent" for ip in sorted(after - before)
    ]
    lines += [f"fdb delete {FLOOD} dev {DEVICE} dst {ip} self" for ip in sorted(before - after)]
    return text(lines)


def forget(macs: Iterable[str], device: str, table: str) -> str:
    """`bridge -batch` input that deletes learned MACs. table: "self" is VXLAN's FDB, "master" the
    bridge's."""
    return text(f"fdb delete {mac} dev {device} {table}" for mac in macs)


def heartbeat_difference(now: Iterable[tuple[str, str]], wanted: Iterable[tuple[str, str]]) -> str:
    """`bridge -batch` input for entries (peer, address): heartbeats need them before any frame was
    received."""
    before = set(now)
    after = set(wanted)
    lines = [
        f"fdb replace {peer} dev {DEVICE} dst {ip} self permanent"
        for peer, ip in sorted(after - before)
    ]
    kept = {peer for peer, _ in after}
    return text(
        lines
        + [
            f"fdb delete {peer} dev {DEVICE} self"
            for peer, _ in sorted(before - after)
            if peer not in kept
        ],
    )


def own_networks(ranges: Sequence[Range]) -> list[str]:
    """The networks that make up this node's parts of the range."""
    return [
        str(network)
        for part in ranges
        for network in summarize_address_range(IPv4Address(part.start), IPv4Address(part.end - 1))
    ]


def own_set(ranges: Sequence[Range]) -> str:
    """`ipset restore -exist` input. With externalTrafficPolicy: Local a pod sees its client
    (NO_MASQ_LOCAL)."""
    return text(ipset.replacement(NO_MASQUERADE, "hash:net family inet", own_networks(ranges)))


def forward_rules(expect_npc: bool = False) -> list[str]:
    """The rules at the head of filter FORWARD, in this order."""
    rest = [
        f"-i {BRIDGE} ! -o {BRIDGE} -j ACCEPT",
        f"-o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]
    if expect_npc:
        note = f'-m comment --comment "{_NOTE}"'
        return [
            f"-i {BRIDGE} {note} -j {NPC_EGRESS}",
            f"-o {BRIDGE} {note} -j {NPC_MAIN}",
            f"-o {BRIDGE} -m state --state NEW -j NFLOG --nflog-group 86",
            f"-o {BRIDGE} -j DROP",
            *rest,
        ]
    return [
        f"-i {BRIDGE} -o {BRIDGE} -j ACCEPT",
        f"-o {BRIDGE} -j WEAVE-EXPOSE",
        *rest,
    ]


def nat_rules(subnet: IPv4Network) -> tuple[str, ...]:
    """Chain WEAVE: packets that enter or leave the range get the address of the node's bridge or
    interface."""
    return (
        f"-m set --match-set {NO_MASQUERADE} dst "
        '-m comment --comment "Prevent SNAT to locally running containers" -j RETURN',
        f"-s {subnet} -d 224.0.0.0/4 -j RETURN",
        f"! -s {subnet} -d {subnet} -j MASQUERADE",
        f"-s {subnet} ! -d {subnet} -j MASQUERADE",
    )


def rules(
    subnet: IPv4Network,
    incoming: Iterable[ipsec.Association] | None,
    expect_npc: bool = False,
) -> Ruleset:
    """incoming None means no encryption. With expect_npc the chains of weave-npc decide what the
    bridge forwards, and what they do not accept is logged and dropped."""
    forward = Lead("filter", "FORWARD", tuple(forward_rules(expect_npc)), at_head=True)
    leads = [Lead("nat", "POSTROUTING", ("-j WEAVE",)), forward]
    chains: list[Chain] = []
    if expect_npc:
        leads.append(Lead("filter", "INPUT", (f"-i {BRIDGE} -j {NPC_EGRESS}",)))
    else:
        chains.append(Chain("filter", "WEAVE-EXPOSE", (f"-d {subnet} -j ACCEPT",)))
    chains.append(Chain("nat", "WEAVE", nat_rules(subnet)))
    wanted = Ruleset(tuple(chains), tuple(leads))
    return wanted if incoming is None else wanted | ipsec.rules(incoming, PORT)
