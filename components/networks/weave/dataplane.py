"""What a node's kernel should have: bridge, VXLAN device, flood entries, chains. Pure.

    pod eth0 -- vethwepl... -- [ bridge weave, 10.32.0.1/12 ] -- vxlan-6784 == UDP 6784 == each established peer

One Ethernet segment over all nodes: the VXLAN device sends to all peers what is for nobody it knows, and learns who is
where. A frame that came by it never leaves by it again, so there is no loop. (github.com/weaveworks/weave:
net/bridge.go, net/expose.go.)
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

BRIDGE, DEVICE, PORT, VNI = "weave", "vxlan-6784", 6784, 6784
#: A veth for frames that go by datagrams: one end is a port of the bridge, at the other weave-net reads and writes.
BRIDGE_END, PCAP = "vethwe-bridge", "vethwe-pcap"
#: What fits into the smallest network that is likely (GCE, 1460) with VXLAN's 50 bytes and ESP's 34.
DEFAULT_MTU = 1376
NO_MASQUERADE = "weaver-no-masq-local"
FLOOD = "00:00:00:00:00:00"


def peer_name(seed: str) -> str:
    """The peer's name is the MAC of its bridge: locally administered, and the same after each start."""
    digest = bytearray(sha256(seed.encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return ":".join(f"{byte:02x}" for byte in digest)


@dataclass(frozen=True)
class Device:
    """name: the peer's; outer, local: interface and address of the node."""

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
    """A port of the bridge. It has no outer interface: the route says where each peer is."""
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
    """`ip -batch` input: what came from one peer is not handed on to the datagrams of another."""
    return f"link set dev {DEVICE} type bridge_slave isolated on\n"


def make_veth(device: Device) -> str:
    """`ip -batch` input. Isolated, as the VXLAN device: what came from one peer is not handed on to another."""
    return (
        f"link add {BRIDGE_END} mtu {device.mtu} type veth peer name {PCAP} mtu {device.mtu}\n"
        f"link set dev {PCAP} addrgenmode none up\n"
        f"link set dev {BRIDGE_END} addrgenmode none master {BRIDGE} up\n"
        f"link set dev {BRIDGE_END} type bridge_slave isolated on\n"
    )


def flood_difference(now: Iterable[str], wanted: Iterable[str]) -> str:
    """`bridge -batch` input: to whom unknown and broadcast frames go. What was learned of who is gone goes, too."""
    before, after = set(now), set(wanted)
    lines = [f"fdb append {FLOOD} dev {DEVICE} dst {ip} self permanent" for ip in sorted(after - before)]
    lines += [f"fdb delete {FLOOD} dev {DEVICE} dst {ip} self" for ip in sorted(before - after)]
    return text(lines)


def forget(macs: Iterable[str], device: str, table: str) -> str:
    """`bridge -batch` input: they are looked for anew. table: "self" is VXLAN's, "master" the bridge's."""
    return text(f"fdb delete {mac} dev {device} {table}" for mac in macs)


def heartbeat_difference(now: Iterable[tuple[str, str]], wanted: Iterable[tuple[str, str]]) -> str:
    """`bridge -batch` input: (peer, address): where VXLAN carries heartbeats, before any frame has come from there."""
    before, after = set(now), set(wanted)
    lines = [f"fdb replace {peer} dev {DEVICE} dst {ip} self permanent" for peer, ip in sorted(after - before)]
    kept = {peer for peer, _ in after}
    return text(
        lines + [f"fdb delete {peer} dev {DEVICE} self" for peer, _ in sorted(before - after) if peer not in kept]
    )


def own_networks(ranges: Sequence[Range]) -> list[str]:
    """The ranges of addresses that may be this node's pods'."""
    return [
        str(network)
        for one in ranges
        for network in summarize_address_range(IPv4Address(one.start), IPv4Address(one.end - 1))
    ]


def own_set(ranges: Sequence[Range]) -> str:
    """`ipset restore -exist` input: with externalTrafficPolicy: Local a pod here sees its client (NO_MASQ_LOCAL)."""
    return text(ipset.replacement(NO_MASQUERADE, "hash:net family inet", own_networks(ranges)))


def forward_rules() -> list[str]:
    """At the head of filter FORWARD, in this order."""
    return [
        f"-i {BRIDGE} -o {BRIDGE} -j ACCEPT",
        f"-o {BRIDGE} -j WEAVE-EXPOSE",
        f"-i {BRIDGE} ! -o {BRIDGE} -j ACCEPT",
        f"-o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]


def nat_rules(subnet: IPv4Network) -> tuple[str, ...]:
    """Chain WEAVE: what enters or leaves the range has the address of a node's bridge or interface."""
    return (
        f"-m set --match-set {NO_MASQUERADE} dst "
        '-m comment --comment "Prevent SNAT to locally running containers" -j RETURN',
        f"-s {subnet} -d 224.0.0.0/4 -j RETURN",
        f"! -s {subnet} -d {subnet} -j MASQUERADE",
        f"-s {subnet} ! -d {subnet} -j MASQUERADE",
    )


def rules(subnet: IPv4Network, incoming: Iterable[ipsec.Association] | None) -> Ruleset:
    """incoming None: no encryption."""
    chains = (
        Chain("filter", "WEAVE-EXPOSE", (f"-d {subnet} -j ACCEPT",)),
        Chain("nat", "WEAVE", nat_rules(subnet)),
    )
    leads = (
        Lead("nat", "POSTROUTING", ("-j WEAVE",)),
        Lead("filter", "FORWARD", tuple(forward_rules()), at_head=True),
    )
    wanted = Ruleset(chains, leads)
    return wanted if incoming is None else wanted | ipsec.rules(incoming, PORT)
