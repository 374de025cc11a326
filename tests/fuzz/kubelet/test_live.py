"""Frames of WebSocket and SPDY on live connections: each ends with its client, without a traceback, and leaves no
task and no descriptor behind."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.kubelet.streaming import spdy
from tests.fuzz.kubelet.live import Complaints, EchoTarget, Live, live
from tests.fuzz.mutation import mutated

Talk = Callable[..., bytes]
randoms = st.integers(0, 2**32).map(random.Random)


@pytest.fixture(scope="module")
def talk() -> Iterator[Talk]:
    """talk(*parts): the answer."""
    complaints = Complaints()
    loop = asyncio.new_event_loop()
    names = ("components", "aiohttp", "asyncio")
    for name in names:
        logging.getLogger(name).addHandler(complaints)
    running = live(EchoTarget())
    connection: Live = loop.run_until_complete(running.__aenter__())

    def checked(*parts: bytes) -> bytes:
        answer = loop.run_until_complete(connection.talk(*parts))
        assert not complaints.found, complaints.found[0]
        assert not answer.startswith(b"HTTP/1.1 5"), answer[:500]
        return answer

    yield checked
    loop.run_until_complete(running.__aexit__(None, None, None))
    for name in names:
        logging.getLogger(name).removeHandler(complaints)
    loop.close()


WEBSOCKETS = (
    ("/exec/ns/pod/c?command=cat&input=1&output=1&tty=1", "v5.channel.k8s.io"),
    ("/exec/ns/pod/c?command=cat&input=1&output=1&error=1", "v4.channel.k8s.io"),
    ("/exec/ns/pod/c?command=nonesuch&output=1", "v5.channel.k8s.io"),
    ("/attach/ns/pod/c?input=1&output=1", "v5.channel.k8s.io"),
    ("/portForward/ns/pod", "SPDY/3.1+portforward.k8s.io"),
)


def _websocket_head(path: str, protocol: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    ).encode()


def _message(rng: random.Random, data: bytes) -> bytes:
    """RFC 6455, 5.2: mostly right ones."""
    opcode = rng.choice([1, 2, 2, 2, 2, 0, 8, 9, 10, 3, 15])
    first = rng.choice([0x80, 0x80, 0x80, 0, 0xC0, 0xF0]) | opcode
    mask = rng.choice([0x80, 0x80, 0x80, 0x80, 0])
    size = len(data) if rng.random() < 0.9 else rng.choice([0, 1, 126, 65535, 2**31, 2**63, 2**64 - 1])
    if size < 126:
        head = struct.pack(">BB", first, mask | size)
    elif size < 65536:
        head = struct.pack(">BBH", first, mask | 126, size)
    else:
        head = struct.pack(">BBQ", first, mask | 127, size)
    key = rng.randbytes(4)
    if not mask:
        return head + data
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


def _channel_data(rng: random.Random) -> bytes:
    channel = rng.choice([0, 0, 0, 1, 3, 4, 4, 5, 255, 255])
    sizes = [b'{"Height":24,"Width":80}', b'{"Height":-1}', b"[" * 5000, b'{"Height":1e999,"Width":"x"}', b"null"]
    data = rng.choice([b"", b"\x00", b"\x04", b"hello", rng.randbytes(200), b"\xff\xfe" * 3000, *sizes])
    return b"" if rng.random() < 0.05 else bytes([channel]) + data


def _streams(rng: random.Random) -> list[bytes]:
    """What a client of port-forward or of exec sends over SPDY."""
    client = spdy.Connection()
    kinds = ["error", "data", "stdin", "stdout", "stderr", "resize", ""]
    made: list[bytes] = []
    for number in range(1, rng.randint(2, 14), 2):
        headers = {"streamtype": rng.choice(kinds), "port": rng.choice(["80", "80", "81", "x", "", "9" * 5000])}
        made.append(client.open(number, headers | {"requestid": rng.choice(["1", "2", ""])}, fin=rng.random() < 0.1))
    for _ in range(rng.randint(0, 10)):
        number = rng.choice([1, 1, 3, 3, 5, 7, 0, 2**31 - 1])
        made.append(
            rng.choice([
                client.data(number, rng.randbytes(rng.choice([0, 1, 40, 5000])), fin=rng.random() < 0.3),
                client.reset(number), client.ping(7), client.reply(number, {"a": "b"}),
                struct.pack(">IB", 0x80030000 | rng.randrange(12), rng.randrange(256)) + b"\0\0\4" + rng.randbytes(4),
            ])
        )  # fmt: skip
    return made


@given(rng=randoms)
def test_websocket_messages(talk: Talk, rng: random.Random) -> None:
    path, protocol = rng.choice(WEBSOCKETS)
    if path.startswith("/portForward"):
        messages = [_message(rng, part) for part in _streams(rng)]
    else:
        messages = [_message(rng, _channel_data(rng)) for _ in range(rng.randint(0, 8))]
    if messages and rng.random() < 0.3:
        messages = [mutated(rng, messages)]
    answer = talk(_websocket_head(path, protocol), *messages)
    assert answer.startswith(b"HTTP/1.1 101"), answer[:200]


@given(rng=randoms, path=st.sampled_from(WEBSOCKETS))
def test_websocket_handshakes(talk: Talk, rng: random.Random, path: tuple[str, str]) -> None:
    talk(mutated(rng, [_websocket_head(*one) for one in (path, *WEBSOCKETS)]))


def _spdy_head(path: str, protocol: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    ).encode()


@given(rng=randoms)
def test_spdy_streams(talk: Talk, rng: random.Random) -> None:
    forward = _spdy_head("/portForward/ns/pod", "portforward.k8s.io")
    run = _spdy_head("/exec/ns/pod/c?command=cat&input=1&output=1", "v4.channel.k8s.io")
    frames = _streams(rng)
    if rng.random() < 0.4:
        frames = [mutated(rng, [b"".join(frames)])]
    talk(rng.choice([forward, forward, run]), *frames)


def test_what_a_forward_sends_comes_back(talk: Talk) -> None:
    """The tests above would not notice that nothing is read at all."""
    client = spdy.Connection()
    opened = [client.open(number, {"streamtype": kind, "port": "80", "requestid": "1"}) for number, kind in
              ((1, "error"), (3, "data"))]  # fmt: skip
    answer = talk(
        _spdy_head("/portForward/ns/pod", "portforward.k8s.io"), *opened, client.data(3, b"to and fro", fin=True)
    )
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    events = spdy.Connection().receive(frames)
    assert b"to and fro" in b"".join(one.data for one in events if isinstance(one, spdy.DataReceived))
