"""Frames and captures: each decodes to something with a line of text, or says where it is malformed."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from kubewire.scenarios.engine.packets import decode as packets
from kubewire.scenarios.engine.packets import pcapng
from tests.fuzz.mutation import mutated

MACS = bytes(range(12))


def ipv4(protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return head + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    return (
        struct.pack("!IHBB16s16s", 0x60000000, len(payload), protocol, 64, b"\xfd" + bytes(15), b"\xfd" * 16) + payload
    )


def ethernet(kind: int, payload: bytes) -> bytes:
    return MACS + struct.pack("!H", kind) + payload


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 4711, port, 8 + len(payload), 0) + payload


TCP = struct.pack("!HHIIBBHHH", 4711, 80, 1, 2, 0x50, 0x12, 1000, 0, 0) + b"GET /"
VXLAN = b"\x08\0\0\0\0\0\x01\0"
INNER = ethernet(0x0800, ipv4(6, TCP))
ICMP_ERROR = b"\x03\x04\0\0\0\0\x05\x78" + ipv4(17, udp(53, b"query"))
ND = b"\x87\0\0\0\0\0\0\0" + b"\xfd" * 16
FRAMES = (
    INNER,
    ethernet(0x86DD, ipv6(0, b"\x3c\0" + bytes(6) + b"\x06\0" + bytes(6) + TCP)),
    ethernet(0x0800, ipv4(17, udp(4789, VXLAN + INNER))),
    ethernet(0x0800, ipv4(4, ipv4(41, ipv6(4, ipv4(6, TCP))))),
    ethernet(0x0800, ipv4(1, ICMP_ERROR)),
    ethernet(0x86DD, ipv6(58, ND)),
    ethernet(0x86DD, ipv6(58, b"\x02\0\0\0\0\0\x05\0" + ipv6(17, udp(53, b"x")))),
    ethernet(0x8100, b"\0\x05\x08\0" + ipv4(50, b"\0\0\0\x09sealed")),
    ethernet(0x0806, b"\0\1\x08\0\6\4\0\1" + MACS[:6] + b"\x0a\0\0\1" + MACS[6:] + b"\x0a\0\0\2"),
)
CAPTURE = (
    pcapng.section()
    + pcapng.interface(pcapng.Interface("worker-1:eth0", "uplink"))
    + pcapng.packet(pcapng.Record(0, 1_700_000_000_000_000_000, INNER, len(INNER), True, "comment"))
    + pcapng.statistics(0, 1, 5, 2)
)


def look(frame: bytes) -> None:
    packet = packets.decode(frame)
    assert packets.summary(packet)
    packets.identity(packet)
    assert packet.innermost.protocol


def test_nesting_has_an_end() -> None:
    """IP-in-IP, VXLAN and quoted packets as deep as a frame of 64 KiB can be."""
    plain, quoted, tunnelled = ipv4(6, TCP), ipv4(6, TCP), INNER
    for _ in range(1500):
        plain = ipv4(4, plain[:65000])
        quoted = ipv4(1, b"\x03\x01\0\0\0\0\0\0" + quoted[:65000])
        tunnelled = ethernet(0x0800, ipv4(17, udp(8472, VXLAN + tunnelled[:65000])))
    for frame in (ethernet(0x0800, plain), ethernet(0x0800, quoted), tunnelled):
        look(frame)
    deepest = packets.decode(ethernet(0x0800, plain)).innermost
    assert deepest.malformed == f"nested deeper than {packets.MAX_DEPTH} packets"
    assert packets.summary(packets.decode(ethernet(0x0800, plain))).endswith("malformed: nested deeper than 16 packets")


@given(st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100, 0x88CC]), st.binary(max_size=120))
def test_any_frame(kind: int, payload: bytes) -> None:
    look(ethernet(kind, payload))
    look(payload)


def test_mutated_frames(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    for _ in range(examples):
        frame = mutated(chance, FRAMES)
        timely(partial(look, frame))


def test_mutated_captures(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    def parse(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            for record in pcapng.parse(data, "FILE").records:
                look(record.data)

    for _ in range(examples):
        data = CAPTURE[:28] + mutated(chance, (CAPTURE[28:],)) if chance.random() < 0.7 else mutated(chance, (CAPTURE,))
        timely(partial(parse, data))
