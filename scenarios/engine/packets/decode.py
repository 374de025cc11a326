"""Decodes frames into frozen dataclasses: Ethernet, ARP, IPv4, IPv6, TCP, UDP, ICMP and VXLAN, with
the packets inside.

It reads headers only and does not verify checksums. On veth links the kernel leaves TCP and UDP
checksums to be computed by hardware (checksum offload), and as there is none, captured checksums
are often wrong. A truncated frame is decoded as far as it goes; `malformed` says where decoding
stopped.

`identity` recognises a packet on its way through the cluster. NAT changes its addresses and ports,
each hop its TTL, and an overlay wraps it, so only what nothing on the way changes can be compared.

Sources: RFC 791, 8200, 826, 9293, 768, 792, 4443, 7348 (VXLAN).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_VLAN = 0x8100
ETH_IPV6 = 0x86DD
#: UDP ports of VXLAN: IANA's, the one that Linux used before (flannel still does), Weave Net's.
VXLAN_PORTS = (4789, 8472, 6784)
_ESP = 50
#: Levels of packets inside packets (VXLAN, IP-in-IP, quoted by ICMP). The bound keeps a malicious
#: packet from exhausting the stack.
MAX_DEPTH = 16
FLAG_LETTERS = "FSRPAUEC"
FLAG_NAMES = {
    "F": "FIN",
    "S": "SYN",
    "R": "RST",
    "P": "PSH",
    "A": "ACK",
    "U": "URG",
    "E": "ECE",
    "C": "CWR",
}


@dataclass(frozen=True, slots=True)
class Ethernet:
    destination: str
    source: str
    ethertype: int


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP message. operation: 1 request, 2 reply."""

    operation: int
    sender_mac: str
    sender_ip: str
    target_mac: str
    target_ip: str


@dataclass(frozen=True, slots=True)
class IP:
    """An IP header. length: bytes of the whole IP packet. identification: 0 in IPv6. fragment:
    offset in bytes."""

    version: int
    source: str
    destination: str
    protocol: int
    ttl: int
    length: int
    identification: int = 0
    dont_fragment: bool = True
    more_fragments: bool = False
    fragment: int = 0


@dataclass(frozen=True, slots=True)
class TCP:
    """A TCP header. flags: the letters of "FSRPAUEC" that are set, in this order ("SA" is a
    SYN-ACK)."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: str
    window: int


@dataclass(frozen=True, slots=True)
class UDP:
    sport: int
    dport: int


@dataclass(frozen=True, slots=True)
class ICMP:
    """An ICMP or ICMPv6 message.

    quoted: the packet that caused an error message. mtu: that of "fragmentation needed" or "packet
    too big", else 0. target: the address in a neighbour solicitation or advertisement (RFC 4861,
    4.3 and 4.4).
    """

    version: int
    type: int
    code: int
    identifier: int = 0
    sequence: int = 0
    mtu: int = 0
    quoted: Packet | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class Packet:
    """A decoded packet.

    length: bytes on the wire. inner: the packet that a VXLAN (vni is set) or IP-in-IP packet
    carries. malformed: why decoding stopped early ("cut off in the TCP header"), or "".
    """

    length: int
    ethernet: Ethernet | None = None
    arp: Arp | None = None
    ip: IP | None = None
    tcp: TCP | None = None
    udp: UDP | None = None
    icmp: ICMP | None = None
    payload: bytes = b""
    vni: int | None = None
    inner: Packet | None = None
    malformed: str = ""

    @property
    def innermost(self) -> Packet:
        """The packet that applications see, without any encapsulation."""
        return self.inner.innermost if self.inner else self

    @property
    def protocol(self) -> str:
        """The protocol: "tcp", "udp", "icmp", "arp", "esp", or else the IP protocol number or the
        EtherType as text."""
        for name in ("tcp", "udp", "icmp", "arp"):
            if getattr(self, name):
                return name
        if self.ip:
            return "esp" if self.ip.protocol == _ESP else str(self.ip.protocol)
        return f"{self.ethernet.ethertype:#06x}" if self.ethernet else "?"

    @property
    def ports(self) -> tuple[int, int] | None:
        """The ports of TCP and UDP as (source, destination)."""
        layer = self.tcp or self.udp
        return (layer.sport, layer.dport) if layer else None

    @property
    def addresses(self) -> tuple[str, str] | None:
        """The addresses: (source, destination) of IP, or (sender, target) of ARP."""
        if self.ip:
            return self.ip.source, self.ip.destination
        return (self.arp.sender_ip, self.arp.target_ip) if self.arp else None


def decode(data: bytes, length: int | None = None, depth: int = 0) -> Packet:
    """Decodes an Ethernet frame. length: bytes on the wire, if data is truncated. depth: number of
    packets that contain this one."""
    wire = len(data) if length is None else length
    if len(data) < 14:
        return Packet(wire, malformed="cut off in the Ethernet header")
    ethertype = struct.unpack_from("!H", data, 12)[0]
    offset = 14
    if ethertype == ETH_VLAN and len(data) >= 18:
        ethertype = struct.unpack_from("!H", data, 16)[0]
        offset = 18
    ethernet = Ethernet(_mac(data[0:6]), _mac(data[6:12]), ethertype)
    return _network(data[offset:], ethertype, wire, ethernet, depth)


def decode_ip(data: bytes, length: int | None = None, depth: int = 0) -> Packet:
    """Decodes an IP packet without Ethernet header, as ICMP errors quote and IP-in-IP carries."""
    ethertype = ETH_IPV6 if data[:1] and data[0] >> 4 == 6 else ETH_IPV4
    return _network(data, ethertype, len(data) if length is None else length, None, depth)


_HEADERS = {ETH_ARP: "ARP", ETH_IPV4: "IPv4", ETH_IPV6: "IPv6"}


def _network(
    data: bytes,
    ethertype: int,
    wire: int,
    ethernet: Ethernet | None,
    depth: int,
) -> Packet:
    if depth > MAX_DEPTH:
        return Packet(wire, ethernet, malformed=f"nested deeper than {MAX_DEPTH} packets")
    try:
        if ethertype == ETH_ARP:
            return Packet(wire, ethernet, arp=_arp(data))
        if ethertype == ETH_IPV4:
            return _transport(*_ipv4(data), wire, ethernet, depth)
        if ethertype == ETH_IPV6:
            return _transport(*_ipv6(data), wire, ethernet, depth)
    except (struct.error, IndexError):
        return Packet(wire, ethernet, malformed=f"cut off in the {_HEADERS[ethertype]} header")
    except ValueError as error:
        return Packet(wire, ethernet, malformed=str(error))
    return Packet(wire, ethernet)


def _arp(data: bytes) -> Arp:
    operation, smac, sip, tmac, tip = struct.unpack_from("!6xH6s4s6s4s", data)
    return Arp(operation, _mac(smac), str(IPv4Address(sip)), _mac(tmac), str(IPv4Address(tip)))


def _ipv4(data: bytes) -> tuple[IP, bytes]:
    first, total, ident, frag, ttl, protocol, src, dst = struct.unpack_from("!BxHHHBB2x4s4s", data)
    if first >> 4 != 4 or first & 0x0F < 5:  # RFC 791, 3.1
        raise ValueError(
            f"an IPv4 header with version {first >> 4} and length {(first & 0x0F) * 4}",
        )
    header = IP(
        4,
        str(IPv4Address(src)),
        str(IPv4Address(dst)),
        protocol,
        ttl,
        total,
        ident,
        bool(frag & 0x4000),
        bool(frag & 0x2000),
        (frag & 0x1FFF) * 8,
    )
    # total is 0 in packets above 64 KiB, which segmentation offload may produce (BIG TCP).
    return header, data[(first & 0x0F) * 4 : total or None]


#: IPv6 extension headers that may precede the transport header: hop-by-hop options, routing,
#: destination options (RFC 8200, 4).
IPV6_OPTIONS = (0, 43, 60)


def _ipv6(data: bytes) -> tuple[IP, bytes]:
    length, protocol, hops, src, dst = struct.unpack_from("!4xHBB16s16s", data)
    if data[0] >> 4 != 6:
        raise ValueError(f"an IPv6 header with version {data[0] >> 4}")
    offset = 40
    while protocol in IPV6_OPTIONS:
        protocol = data[offset]
        offset += (data[offset + 1] + 1) * 8
    header = IP(6, str(IPv6Address(src)), str(IPv6Address(dst)), protocol, hops, length + 40)
    return header, data[offset : 40 + length if length else None]


_TRANSPORTS = {6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMP"}


def _transport(ip: IP, data: bytes, wire: int, ethernet: Ethernet | None, depth: int) -> Packet:
    whole = Packet(wire, ethernet, ip=ip, payload=data)
    if ip.fragment:
        return whole  # only the first fragment has the transport header
    try:
        match ip.protocol:
            case 6:
                return _tcp(ip, data, wire, ethernet)
            case 17:
                return _udp(ip, data, wire, ethernet, depth)
            case 1 | 58:
                icmp, payload = _icmp(ip.version, data, depth)
                return Packet(wire, ethernet, ip=ip, icmp=icmp, payload=payload)
            case 4 | 41:
                return Packet(wire, ethernet, ip=ip, inner=decode_ip(data, depth=depth + 1))
    except (struct.error, IndexError):
        return replace(whole, malformed=f"cut off in the {_TRANSPORTS[ip.protocol]} header")
    return whole


def _tcp(ip: IP, data: bytes, wire: int, ethernet: Ethernet | None) -> Packet:
    sport, dport, seq, ack, offset, bits, window = struct.unpack_from("!HHIIBBH", data)
    flags = "".join(letter for n, letter in enumerate(FLAG_LETTERS) if bits & (1 << n))
    tcp = TCP(sport, dport, seq, ack, flags, window)
    return Packet(wire, ethernet, ip=ip, tcp=tcp, payload=data[(offset >> 4) * 4 :])


def _udp(ip: IP, data: bytes, wire: int, ethernet: Ethernet | None, depth: int) -> Packet:
    sport, dport = struct.unpack_from("!HH", data)
    payload = data[8:]
    # The I flag of the VXLAN header says that the VNI is valid (RFC 7348, 5).
    if dport in VXLAN_PORTS and len(payload) >= 8 and payload[0] & 0x08:
        vni = int.from_bytes(payload[4:7])
        inner = decode(payload[8:], depth=depth + 1)
        return Packet(wire, ethernet, ip=ip, udp=UDP(sport, dport), vni=vni, inner=inner)
    return Packet(wire, ethernet, ip=ip, udp=UDP(sport, dport), payload=payload)


def _icmp(version: int, data: bytes, depth: int) -> tuple[ICMP, bytes]:
    kind, code, first, second = struct.unpack_from("!BB2xHH", data)
    echo = kind in ((8, 0) if version == 4 else (128, 129))
    if echo:
        return ICMP(version, kind, code, first, second), data[8:]
    if version == 6 and kind in (135, 136) and len(data) >= 24:
        return ICMP(version, kind, code, target=str(IPv6Address(data[8:24]))), data[8:]
    error = kind in ((3, 4, 5, 11, 12) if version == 4 else (1, 2, 3, 4))
    mtu = 0
    if (version, kind, code) == (4, 3, 4):
        mtu = second
    elif (version, kind) == (6, 2):
        mtu = first << 16 | second
    quoted = decode_ip(data[8:], depth=depth + 1) if error else None
    return ICMP(version, kind, code, mtu=mtu, quoted=quoted), data[8:]


def _mac(raw: bytes) -> str:
    return raw.hex(":")


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts of a packet that stay the same on its whole way, through VXLAN, hops and NAT.

    For TCP these are the sequence numbers and flags, for UDP the payload, for ICMP echo the
    sequence number and the payload. The IP identification distinguishes otherwise equal packets,
    because a retransmission has a new one.
    """

    protocol: str
    identification: int
    marks: tuple[int | str, ...]


def identity(packet: Packet) -> Identity:
    """The identity of the innermost packet. Two sightings with equal identities are the same
    packet."""
    inner = packet.innermost
    number = inner.ip.identification if inner.ip else 0
    digest = hashlib.blake2b(inner.payload, digest_size=8).hexdigest()
    if inner.tcp:
        tcp = inner.tcp
        return Identity("tcp", number, (tcp.seq, tcp.ack, tcp.flags, len(inner.payload)))
    if inner.icmp:
        icmp = inner.icmp
        if icmp.quoted:
            quoted = repr(identity(icmp.quoted)).encode()
            digest = hashlib.blake2b(quoted, digest_size=8).hexdigest()
        ends = _never_translated(inner)
        return Identity("icmp", number, (icmp.type, icmp.code, icmp.sequence, digest, *ends))
    if inner.arp:
        arp = inner.arp
        return Identity("arp", arp.operation, (arp.sender_mac, arp.sender_ip, arp.target_ip))
    return Identity(inner.protocol, number, (digest, len(inner.payload), *_never_translated(inner)))


def _never_translated(packet: Packet) -> tuple[str, ...]:
    """The addresses of a packet to a multicast or link-local address, else (). Such a packet stays
    on its link and is never translated, so equal messages from two senders (MLD, router
    solicitations) are two packets."""
    if not packet.ip:
        return ()
    destination = ip_address(packet.ip.destination)
    on_link = destination.is_multicast or destination.is_link_local
    return (packet.ip.source, packet.ip.destination) if on_link else ()


def summary(packet: Packet) -> str:
    """The packet in one line: "172.18.0.3:51334 -> 172.18.0.4:8472 VXLAN vni 1 | 10.244.1.2:33000
    -> 10.244.2.3:8080 TCP SYN"."""
    return " | ".join(_layers(packet))


def _layers(packet: Packet) -> Iterator[str]:
    ends = packet.addresses
    if not ends:
        yield f"malformed: {packet.malformed}" if packet.malformed else packet.protocol
        return
    ports = packet.ports
    source, destination = ends
    if ports:
        source = _with_port(source, ports[0])
        destination = _with_port(destination, ports[1])
    if packet.arp:
        yield _arp_text(packet.arp)
    else:
        yield f"{source} -> {destination} {describe(packet)}"
    if packet.inner:
        yield from _layers(packet.inner)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _arp_text(arp: Arp) -> str:
    if arp.operation == 1:
        return f"ARP who has {arp.target_ip}? tell {arp.sender_ip}"
    return f"ARP {arp.sender_ip} is at {arp.sender_mac}"


ICMP_NAMES = {
    (4, 0): "echo reply",
    (4, 8): "echo request",
    (6, 128): "echo request",
    (6, 129): "echo reply",
    (4, 11): "time exceeded",
    (6, 3): "time exceeded",
    (6, 2): "packet too big",
    (4, 5): "redirect",
    (6, 133): "router solicitation",
    (6, 134): "router advertisement",
    (6, 143): "multicast listener report",
}
UNREACHABLE = {
    0: "network",
    1: "host",
    2: "protocol",
    3: "port",
    9: "network (prohibited)",
    10: "host (prohibited)",
}
#: Codes of "destination unreachable" (RFC 4443, 3.1).
UNREACHABLE_IPV6 = {
    0: "route",
    1: "address (prohibited)",
    3: "address",
    4: "port",
    6: "route (rejected)",
}


def describe(packet: Packet) -> str:
    """The kind of packet, without addresses: "TCP SYN", "VXLAN vni 1", "ICMP echo request",
    "UDP 44 bytes"."""
    if packet.vni is not None:
        return f"VXLAN vni {packet.vni}"
    if packet.tcp:
        size = f" {len(packet.payload)} bytes" if packet.payload else ""
        return "TCP " + "-".join(FLAG_NAMES[f] for f in _flags_as_said(packet.tcp.flags)) + size
    if packet.udp:
        return f"UDP {len(packet.payload)} bytes"
    if packet.icmp:
        return "ICMP " + _icmp_text(packet.icmp)
    if packet.protocol == "esp":  # the SPI comes first, the rest is encrypted (RFC 4303, 2)
        return f"ESP spi 0x{packet.payload[:4].hex()} {len(packet.payload)} bytes"
    said = packet.protocol.upper() if packet.arp else f"protocol {packet.protocol}"
    return f"{said}, malformed: {packet.malformed}" if packet.malformed else said


def _flags_as_said(flags: str) -> str:
    """The flags in the usual order of speech, with ACK last: SYN-ACK, FIN-ACK."""
    return flags.replace("A", "") + ("A" if "A" in flags else "")


def _icmp_text(icmp: ICMP) -> str:
    if icmp.target:
        if icmp.type == 135:
            return f"neighbour solicitation, who has {icmp.target}?"
        return f"neighbour advertisement of {icmp.target}"
    if name := ICMP_NAMES.get((icmp.version, icmp.type)):
        if "echo" in name:
            return f"{name} {icmp.sequence}"
        return f"{name}, mtu {icmp.mtu}" if icmp.mtu else name
    if icmp.version == 4 and icmp.type == 3:
        if icmp.code == 4:
            return f"fragmentation needed, mtu {icmp.mtu}"
        return f"{UNREACHABLE.get(icmp.code, f'code {icmp.code}')} unreachable"
    if icmp.version == 6 and icmp.type == 1:
        return f"{UNREACHABLE_IPV6.get(icmp.code, f'code {icmp.code}')} unreachable"
    return f"type {icmp.type} code {icmp.code}"
