"""What the kubelet's server reads of a stream: request heads, queries and SPDY frames."""

from __future__ import annotations

import random
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.kubelet.logs import LogOptions, LogOptionsError
from kubewire.components.kubelet.streaming import spdy
from kubewire.components.kubelet.streaming.server import parse
from kubewire.components.kubelet.streaming.target import TargetError
from kubewire.components.kubelet.streaming.upgrade import parse_head, wants_spdy

texts = st.text(max_size=20)
queries = st.dictionaries(
    st.one_of(texts, st.sampled_from(["command", "input", "output", "stdin", "error", "tty", "port"])),
    st.lists(texts, min_size=1, max_size=3),
    max_size=5,
)


@given(path=st.text(alphabet="/execattachportForward%.-", max_size=40), query=queries)
def test_queries(path: str, query: dict[str, list[str]]) -> None:
    try:
        parse(path, query)
    except TargetError as error:
        assert error.status < 500


@given(
    head=st.one_of(
        st.binary(max_size=120), st.binary(max_size=60).map(lambda end: b"GET /exec/a/b/c HTTP/1.1\r\n" + end)
    )
)
def test_heads(head: bytes) -> None:
    wants_spdy(head)
    try:
        parse_head(head)
    except ValueError:
        return


numbers = st.one_of(texts, st.integers().map(str), st.sampled_from(["9" * 5000, "\u00b2", "-1", "1e9", "true", ""]))


@given(query=st.dictionaries(
    st.sampled_from(["follow", "previous", "tailLines", "limitBytes", "sinceSeconds", "sinceTime", "timestamps", "stream"]),
    numbers, max_size=6,
))  # fmt: skip
def test_log_options(query: dict[str, str]) -> None:
    try:
        LogOptions.of(query, 1_800_000_000.0)
    except LogOptionsError:
        return


def _frames(rng: random.Random) -> bytes:
    client = spdy.Connection()
    made = [
        client.open(rng.choice([0, 1, 3, 2**31 - 1]), {"streamtype": rng.choice(["error", "stdin", "x"]), "\x00": ""}),
        client.data(rng.choice([1, 3, 99]), rng.randbytes(rng.randint(0, 50)), fin=rng.random() < 0.5),
        client.reset(1),
        client.ping(7),
        client.reply(1, {"a": "b"}),
        struct.pack(">IB", 0x80030000 | rng.randrange(12), rng.randrange(256)) + b"\x00\x00\x04" + rng.randbytes(4),
    ]
    data = bytearray(b"".join(rng.choices(made, k=rng.randint(1, 6))))
    for _ in range(rng.randint(0, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


@given(rng=st.integers(0, 2**32).map(random.Random), data=st.binary(max_size=40))
def test_spdy_frames(rng: random.Random, data: bytes) -> None:
    for received in (_frames(rng), data):
        try:
            list(spdy.Connection().receive(received))
        except spdy.SpdyError:
            continue


def test_a_header_block_that_unpacks_to_megabytes_is_refused() -> None:
    packer = zlib.compressobj(zdict=spdy.DICTIONARY)
    # In pieces: what is unpacked must not lie in this process's memory, which is measured.
    pieces = [packer.compress(struct.pack(">II", 1, 50_000_000))]
    pieces += [packer.compress(b"a" * 500_000) for _ in range(100)]
    block = b"".join(pieces) + packer.flush(zlib.Z_SYNC_FLUSH)
    body = struct.pack(">IIH", 1, 0, 0) + block
    frame = struct.pack(">IB", 0x80030001, 0) + len(body).to_bytes(3, "big") + body
    try:
        list(spdy.Connection().receive(frame))
    except spdy.SpdyError as error:
        assert "header block" in str(error)
        return
    raise AssertionError("taken")
