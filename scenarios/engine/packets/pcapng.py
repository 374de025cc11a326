"""Writes and reads pcapng files, which Wireshark, tshark and tcpdump open. Unlike pcap, the format
holds packets of several interfaces, with their names, and comments.

A file is a sequence of blocks, each with type and length. Files of this module have one section, in
little-endian order, with timestamps in nanoseconds. Source: draft-ietf-opsawg-pcapng, sections 4.1
(section header), 4.2 (interface description), 4.3 (enhanced packet), 4.6 (interface statistics).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

LINKTYPE_ETHERNET = 1
SECTION = 0x0A0D0D0A
INTERFACE = 1
STATISTICS = 5
PACKET = 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
OPT_COMMENT = 1
SHB_USERAPPL = 4
IF_NAME = 2
IF_DESCRIPTION = 3
IF_TSRESOL = 9
EPB_FLAGS = 2
ISB_IFRECV = 4
ISB_IFDROP = 5
INBOUND = 1
OUTBOUND = 2


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface. name: as scenarios write it ("worker-1:flannel.1"). description: for people."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One captured frame. time: nanoseconds since 1970. length: bytes on the wire (data may be
    truncated)."""

    interface: int
    time: int
    data: bytes
    length: int
    outbound: bool = False
    comment: str = ""


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _options(*given: bytes) -> bytes:
    joined = b"".join(given)
    return joined + struct.pack("<HH", 0, 0) if joined else b""


def section(application: str = "kubewire", comment: str = "") -> bytes:
    """A section header block that leaves the length of the section open (-1)."""
    options = [_option(SHB_USERAPPL, application.encode())]
    if comment:
        options.insert(0, _option(OPT_COMMENT, comment.encode()))
    return _block(SECTION, struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1) + _options(*options))


def interface(item: Interface, snaplen: int = 0) -> bytes:
    """An interface description block."""
    options = [_option(IF_NAME, item.name.encode())]
    if item.description:
        options.append(_option(IF_DESCRIPTION, item.description.encode()))
    options.append(_option(IF_TSRESOL, b"\x09"))
    return _block(
        INTERFACE,
        struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snaplen) + _options(*options),
    )


def packet(record: Record) -> bytes:
    """An enhanced packet block."""
    data = record.data
    head = struct.pack(
        "<IIIII",
        record.interface,
        record.time >> 32,
        record.time & 0xFFFFFFFF,
        len(data),
        record.length,
    )
    options = [_option(EPB_FLAGS, struct.pack("<I", OUTBOUND if record.outbound else INBOUND))]
    if record.comment:
        options.insert(0, _option(OPT_COMMENT, record.comment.encode()))
    return _block(PACKET, head + data + b"\0" * (-len(data) % 4) + _options(*options))


def statistics(number: int, time: int, received: int, dropped: int) -> bytes:
    """An interface statistics block: packets received, and packets dropped because the reader was
    too slow."""
    head = struct.pack("<III", number, time >> 32, time & 0xFFFFFFFF)
    options = _options(
        _option(ISB_IFRECV, struct.pack("<Q", received)),
        _option(ISB_IFDROP, struct.pack("<Q", dropped)),
    )
    return _block(STATISTICS, head + options)


def write(
    file: BinaryIO,
    interfaces: Sequence[Interface],
    records: Iterable[Record],
    comment: str = "",
) -> None:
    """Writes a whole file."""
    file.write(section(comment=comment))
    for item in interfaces:
        file.write(interface(item))
    for record in records:
        file.write(packet(record))


@dataclass(frozen=True)
class Capture:
    """The content of a file, in its order. dropped: numbers of dropped packets, by interface."""

    interfaces: tuple[Interface, ...]
    records: tuple[Record, ...]
    dropped: tuple[int, ...] = ()


#: Bytes of the largest file that is read into memory. Captures of scenarios are far smaller.
LARGEST_FILE = 1 << 30


def read(path: Path) -> Capture:
    """Reads a file of this module. It may still be written; an incomplete last block is ignored.

    Raises ValueError for any other file, and OSError.
    """
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{path} is too large: it has {size} bytes of at most {LARGEST_FILE}")
    return parse(path.read_bytes(), str(path))


def parse(data: bytes, where: str) -> Capture:
    """Like read(), for the bytes of a file. Raises ValueError with a text that begins with
    where."""
    head = struct.unpack_from("<I4xI", data) if len(data) >= 12 else (SECTION, BYTE_ORDER_MAGIC)
    if head != (SECTION, BYTE_ORDER_MAGIC):
        raise ValueError(f"{where} is not a little-endian pcapng file")
    interfaces: list[Interface] = []
    records: list[Record] = []
    dropped: dict[int, int] = {}
    for offset, kind, body in _blocks(data):
        try:
            if kind == INTERFACE:
                interfaces.append(_read_interface(body))
            elif kind == PACKET:
                records.append(_read_packet(body, len(interfaces)))
            elif kind == STATISTICS:
                number, lost = _read_statistics(body)
                dropped[number] = lost
        except (struct.error, ValueError) as error:
            block = f"the block of type {kind} at byte {offset}"
            raise ValueError(f"{where}: {block} is malformed: {error}") from None
    counts = tuple(dropped.get(number, 0) for number in range(len(interfaces)))
    return Capture(tuple(interfaces), tuple(records), counts)


def _read_interface(body: bytes) -> Interface:
    options = dict(_read_options(body[8:]))
    return Interface(options.get(IF_NAME, b"").decode(), options.get(IF_DESCRIPTION, b"").decode())


def _read_statistics(body: bytes) -> tuple[int, int]:
    (number,) = struct.unpack_from("<I", body)
    (lost,) = struct.unpack("<Q", dict(_read_options(body[12:])).get(ISB_IFDROP, b"\0" * 8))
    return number, lost


def _blocks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The complete blocks: their offset, type and body."""
    offset = 0
    while offset + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        if length < 12 or offset + length > len(data):
            return
        yield offset, kind, data[offset + 8 : offset + length - 4]
        offset += length


def _read_options(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, offset)
        if code == 0:
            return
        yield code, data[offset + 4 : offset + 4 + length]
        offset += 4 + length + (-length % 4)


def _read_packet(body: bytes, interfaces: int) -> Record:
    number, high, low, captured, length = struct.unpack_from("<IIIII", body)
    end = 20 + captured
    if number >= interfaces:
        raise ValueError(f"interface {number} of {interfaces}")
    if end > len(body):
        raise ValueError(f"{captured} bytes of a packet in {len(body) - 20}")
    options = dict(_read_options(body[end + (-captured % 4) :]))
    flags = struct.unpack("<I", options.get(EPB_FLAGS, b"\0\0\0\0"))[0]
    return Record(
        number,
        high << 32 | low,
        body[20:end],
        length,
        flags & 3 == OUTBOUND,
        options.get(OPT_COMMENT, b"").decode(),
    )


def merge(captures: Iterable[Capture]) -> Capture:
    """Merges captures of one machine into one, in the order of time."""
    interfaces: list[Interface] = []
    records: list[Record] = []
    dropped: list[int] = []
    for capture in captures:
        base = len(interfaces)
        interfaces += capture.interfaces
        dropped += capture.dropped or (0,) * len(capture.interfaces)
        for record in capture.records:
            records.append(replace(record, interface=base + record.interface))
    records.sort(key=lambda record: record.time)
    return Capture(tuple(interfaces), tuple(records), tuple(dropped))
