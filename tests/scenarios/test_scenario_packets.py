"""Decoder, pcapng, and what of a packet stays the same on its way. Frames are built with scapy, read with ours."""

import subprocess

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN

from kubewire.scenarios.engine.packets import pcapng
from kubewire.scenarios.engine.packets.decode import decode, identity, summary
from kubewire.scenarios.engine.verbs.packets import nat_between
from tests.existing import existing

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
SYN = IP(src="10.244.1.2", dst="10.244.2.3", id=77) / TCP(sport=33000, dport=8080, flags="S", seq=5)


def vxlan(inner, vni=1):
    outer = IP(src="172.18.0.3", dst="172.18.0.4") / UDP(sport=51334, dport=8472)
    return ETHER / outer / VXLAN(vni=vni) / ETHER / inner


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ETHER / SYN, "10.244.1.2:33000 -> 10.244.2.3:8080 TCP SYN"),
        (ETHER / SYN.copy(), "10.244.1.2:33000 -> 10.244.2.3:8080 TCP SYN"),
        (ETHER / Dot1Q(vlan=7) / SYN, "10.244.1.2:33000 -> 10.244.2.3:8080 TCP SYN"),
        (ETHER / IP(src="1.1.1.1", dst="2.2.2.2") / TCP(sport=1, dport=2, flags="SA"), "1.1.1.1:1 -> 2.2.2.2:2 TCP SYN-ACK"),
        (
            vxlan(SYN),
            "172.18.0.3:51334 -> 172.18.0.4:8472 VXLAN vni 1 | 10.244.1.2:33000 -> 10.244.2.3:8080 TCP SYN",
        ),
        (ETHER / IP(src="1.1.1.1", dst="2.2.2.2") / UDP(sport=1, dport=53) / b"abcd", "1.1.1.1:1 -> 2.2.2.2:53 UDP 4 bytes"),
        (
            ETHER / IP(src="1.1.1.1", dst="2.2.2.2", proto=50) / bytes.fromhex("c0ffee0100000001") / b"sealed",
            "1.1.1.1 -> 2.2.2.2 ESP spi 0xc0ffee01 14 bytes",
        ),
        (
            ETHER / IP(src="1.1.1.1", dst="2.2.2.2") / UDP(sport=1, dport=6784) / VXLAN(vni=6784) / ETHER / SYN,
            "1.1.1.1:1 -> 2.2.2.2:6784 VXLAN vni 6784 | 10.244.1.2:33000 -> 10.244.2.3:8080 TCP SYN",
        ),
        (ETHER / IP(src="1.1.1.1", dst="2.2.2.2") / ICMP(type=8, seq=3), "1.1.1.1 -> 2.2.2.2 ICMP echo request 3"),
        (
            ETHER / IP(src="1.1.1.1", dst="2.2.2.2") / ICMP(type=3, code=4, nexthopmtu=1450) / SYN,
            "1.1.1.1 -> 2.2.2.2 ICMP fragmentation needed, mtu 1450",
        ),
        (ETHER / ARP(op=1, psrc="1.1.1.1", pdst="1.1.1.2"), "ARP who has 1.1.1.2? tell 1.1.1.1"),
        (ETHER / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2) / b"x", "[fd00::1]:1 -> [fd00::2]:2 UDP 1 bytes"),
        (ETHER / IP(src="1.1.1.1", dst="2.2.2.2", proto=4) / SYN, "1.1.1.1 -> 2.2.2.2 protocol 4 | 10.244.1.2:33000 -> 10.244.2.3:8080 TCP SYN"),
    ],
)  # fmt: skip
def test_a_frame_is_said_in_one_line(frame, said):
    assert summary(decode(bytes(frame))) == said


@pytest.mark.parametrize("length", range(60))
def test_a_frame_that_is_cut_off_is_read_as_far_as_it_goes(length):
    whole = bytes(vxlan(SYN))
    packet = decode(whole[:length], len(whole))
    assert packet.length == len(whole)
    summary(packet), identity(packet)


def test_only_the_first_fragment_has_ports():
    later = decode(bytes(ETHER / IP(src="1.1.1.1", dst="2.2.2.2", frag=10, proto=17) / (b"x" * 8)))
    assert (existing(later.ip).fragment, later.ports) == (80, None)


def test_a_packet_is_the_same_inside_vxlan_after_a_hop_and_after_nat():
    there = decode(bytes(ETHER / SYN))
    hop, translated = SYN.copy(), SYN.copy()
    hop.ttl = 62
    translated.dst, translated.sport = "10.96.0.1", 1024
    for other in (vxlan(SYN), ETHER / hop, ETHER / translated):
        assert identity(decode(bytes(other))) == identity(there)


@pytest.mark.parametrize("change", [{"seq": 6}, {"flags": "SA"}])
def test_another_segment_is_another_packet(change):
    other = SYN.copy()
    for name, value in change.items():
        setattr(other[TCP], name, value)
    assert identity(decode(bytes(ETHER / other))) != identity(decode(bytes(ETHER / SYN)))


def test_equal_multicasts_of_two_senders_are_two_packets():
    one, other = (
        decode(bytes(ETHER / IPv6(src=source, dst="ff02::16", hlim=1) / ICMPv6MLReport2()))
        for source in ("fe80::1", "fe80::2")
    )
    assert identity(one) == identity(one) != identity(other)


def test_a_retransmission_is_another_packet():
    again = SYN.copy()
    again.id = 78
    assert identity(decode(bytes(ETHER / again))) != identity(decode(bytes(ETHER / SYN)))


@pytest.mark.parametrize(
    ("change", "said"),
    [({}, "none"), ({"src": "9.9.9.9"}, "source"), ({"dst": "9.9.9.9"}, "destination"), ({"src": "8.8.8.8", "dst": "9.9.9.9"}, "both")],
)  # fmt: skip
def test_nat_is_what_differs(change, said):
    other = SYN.copy()
    for name, value in change.items():
        setattr(other, name, value)
    assert nat_between(decode(bytes(ETHER / SYN)), decode(bytes(ETHER / other))) == said


def test_a_port_alone_is_nat_too():
    other = SYN.copy()
    other[TCP].sport = 1024
    assert nat_between(decode(bytes(ETHER / SYN)), decode(bytes(ETHER / other))) == "source"


def records():
    frames = [ETHER / SYN, vxlan(SYN)]
    return [
        pcapng.Record(number, 1_700_000_000_123_456_789 + number, bytes(frame), len(frame), number == 1, "why" * number)
        for number, frame in enumerate(frames)
    ]


INTERFACES = (pcapng.Interface("pod:a:eth0", "inside"), pcapng.Interface("worker-1:eth0"))


def test_pcapng_reads_back_what_was_written(tmp_path):
    file = tmp_path / "x.pcapng"
    with open(file, "wb") as stream:
        pcapng.write(stream, INTERFACES, records(), "a comment")
        stream.write(pcapng.statistics(1, 5, 10, 3))
    assert pcapng.read(file) == pcapng.Capture(INTERFACES, tuple(records()), (0, 3))


def test_a_file_that_is_being_written_reads_as_far_as_it_goes(tmp_path):
    file = tmp_path / "x.pcapng"
    with open(file, "wb") as stream:
        pcapng.write(stream, INTERFACES, records())
    file.write_bytes(file.read_bytes()[:-7])
    assert len(pcapng.read(file).records) == 1


def test_merging_orders_by_time_and_renumbers_interfaces():
    early, late = records()
    one = pcapng.Capture((INTERFACES[0],), (late,))
    other = pcapng.Capture((INTERFACES[1],), (early,))
    merged = pcapng.merge([pcapng.Capture((INTERFACES[0],), (pcapng.Record(0, 20, b"b", 1),)), pcapng.Capture((INTERFACES[1],), (pcapng.Record(0, 10, b"a", 1),))])  # fmt: skip
    assert [(record.interface, record.data) for record in merged.records] == [(1, b"a"), (0, b"b")]
    assert pcapng.merge([one, other]).interfaces == INTERFACES


def test_tcpdump_opens_it_with_nanoseconds(tmp_path):
    file = tmp_path / "x.pcapng"
    with open(file, "wb") as stream:
        pcapng.write(stream, INTERFACES, records(), "a comment")
    done = subprocess.run(["tcpdump", "-tt", "-nnr", str(file)], capture_output=True, text=True)
    bare, outer, inner = done.stdout.splitlines()  # tcpdump prints what VXLAN carries on a line of its own
    assert bare.startswith("1700000000.123456 IP 10.244.1.2.33000 > 10.244.2.3.8080: Flags [S]"), done.stderr
    assert "172.18.0.3.51334 > 172.18.0.4.8472" in outer
    assert inner.startswith("IP 10.244.1.2.33000 > 10.244.2.3.8080")


def test_scapy_reads_it_too(tmp_path):
    from scapy.utils import PcapNgReader

    file = tmp_path / "x.pcapng"
    with open(file, "wb") as stream:
        pcapng.write(stream, INTERFACES, records(), "a comment")
    with PcapNgReader(str(file)) as reader:
        frame = reader.read_packet()
    assert bytes(frame) == records()[0].data
    assert frame.sniffed_on == "pod:a:eth0"
