"""SPDY/3.1 framing: what one side writes, the other reads, however the bytes are cut."""

import zlib

import pytest

from kubewire.components.kubelet.streaming import spdy
from kubewire.components.kubelet.streaming.spdy import (
    Connection,
    DataReceived,
    StreamOpened,
    StreamReplied,
    StreamReset,
)


def test_the_dictionary_is_the_drafts() -> None:
    # The id that every SPDY/3 header block carries in its zlib header (RFC 1950, DICTID).
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


@pytest.mark.parametrize("step", [1, 3, 7, 100_000], ids=lambda step: f"{step} bytes at a time")
def test_frames_are_read_however_the_bytes_are_cut(step: int) -> None:
    client, server = Connection(), Connection()
    wire = client.open(1, {"streamType": "stdin"}) + client.open(3, {"streamType": "error"})
    wire += client.data(1, b"hello") + client.data(1, b"", fin=True) + client.reset(3) + client.ping(7)
    events = [event for i in range(0, len(wire), step) for event in server.receive(wire[i : i + step])]
    assert events == [
        StreamOpened(1, {"streamtype": "stdin"}),
        StreamOpened(3, {"streamtype": "error"}),
        DataReceived(1, b"hello"),
        DataReceived(1, b"", True),
        StreamReset(3, spdy.CANCEL),
        spdy.Pinged(7),
    ]


def test_large_data_is_cut_into_frames_and_only_the_last_ends_the_stream() -> None:
    events = list(Connection().receive(Connection().data(1, b"x" * 100_000, fin=True)))
    assert all(isinstance(event, DataReceived) for event in events)
    assert [event.fin for event in events if isinstance(event, DataReceived)] == [False, False, False, True]
    assert b"".join(event.data for event in events if isinstance(event, DataReceived)) == b"x" * 100_000


def test_header_compression_keeps_its_state_from_frame_to_frame() -> None:
    one, other = Connection(), Connection()
    sizes = []
    for number in (2, 4, 6):
        wire = one.reply(number, {"x-a-long-header-name": "and its value"})
        sizes.append(len(wire))
        assert list(other.receive(wire)) == [StreamReplied(number, {"x-a-long-header-name": "and its value"})]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (b"\x80\x02\x00\x01\x00\x00\x00\x00", "SPDY version 2"),
        (b"\x80\x03\x00\x01\x00\x00\x00\x0c" + b"\x00" * 10 + b"xx", "malformed frame of type 1"),
    ],
)
def test_a_broken_peer_is_an_error(wire: bytes, says: str) -> None:
    with pytest.raises(spdy.SpdyError, match=says):
        list(Connection().receive(wire))
