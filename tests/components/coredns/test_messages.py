"""Messages and clients as they should not be: FORMERR as miekg/dns has it, and bounds for who does not read."""

from __future__ import annotations

import asyncio
import struct

import pytest
from dnslib import RR, A, DNSError, DNSRecord

from kubewire.components.coredns import message, server
from kubewire.components.coredns.message import Ignored, Rejected, Request, Response

QUESTION = b"\x03web\x07default\x00\x00\x01\x00\x01"


def query(body: bytes, counts: tuple[int, int, int, int] = (1, 0, 0, 0), flags: int = 0x0100) -> bytes:
    return struct.pack("!HHHHHH", 7, flags, *counts) + body


OPT = b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00"


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        pytest.param(query(b"\xc0\x0c\x00\x01\x00\x01"), 1, id="a pointer to itself"),
        pytest.param(query(b"\x01a\xc0\x0c\x00\x01\x00\x01"), 1, id="a loop"),
        pytest.param(query(b"\xc0\xff\x00\x01\x00\x01"), 1, id="a pointer forwards"),
        pytest.param(query((b"\x3f" + b"a" * 63) * 5 + b"\x00\x00\x01\x00\x01"), 1, id="a name of 321 octets"),
        pytest.param(query(b"\x41" + b"a" * 65 + b"\x00\x00\x01\x00\x01"), 1, id="a label of 65 octets"),
        pytest.param(query(b"\x03we"), 1, id="cut off in a label"),
        pytest.param(query(b"\x03web"), 1, id="cut off in a name"),
        pytest.param(query(b"\x03web\x00\x00"), 1, id="cut off behind the name"),
        pytest.param(query(b""), 1, id="no question though one is counted"),
        pytest.param(query(QUESTION * 2, (2, 0, 0, 0)), 1, id="two questions"),
        pytest.param(query(b"", (0, 0, 0, 0)), 1, id="none"),
        pytest.param(query(QUESTION, (1, 2, 0, 0)), 1, id="two answers"),
        pytest.param(query(QUESTION, (1, 0, 0, 3)), 1, id="three additional records"),
        pytest.param(query(QUESTION, flags=0x2000), 4, id="another opcode"),
    ],
)
def test_rejected(data: bytes, rcode: int) -> None:
    with pytest.raises(Rejected) as caught:
        message.decode(data)
    assert caught.value.rcode == rcode
    assert caught.value.reply[:2] == data[:2]


@pytest.mark.parametrize("data", [b"", b"x" * 11, query(QUESTION, flags=0x8000)])
def test_ignored(data: bytes) -> None:
    with pytest.raises(Ignored):
        message.decode(data)


@pytest.mark.parametrize(
    "records", [b"", b"\xff", OPT[:5], b"\x03cut", b"\xc0", OPT[:-2] + b"\xff\xff", b"\x00\x00\x01\x00\x01"]
)
def test_records_that_cannot_be_read_are_left_out(records: bytes) -> None:
    """As miekg/dns: the counts may lie, the question is answered."""
    request = message.decode(query(QUESTION + records, (1, 0, 0, 1)))
    assert (request.name, request.udp_size) == ("web.default.", 0)


def test_edns_is_read_behind_other_records() -> None:
    other = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x01"
    request = message.decode(query(QUESTION + other + OPT, (1, 1, 0, 1)))
    assert (request.udp_size, request.dnssec_ok) == (4096, True)


def test_a_dot_in_a_label_is_no_dot_between_two() -> None:
    assert message.decode(query(b"\x03a.b\x00\x00\x01\x00\x01")).name == "a\\.b."


def test_an_upstreams_name_that_is_too_long_is_no_answer() -> None:
    record = DNSRecord.parse(query(QUESTION)).reply()
    record.add_answer(RR("web.default", 1, rdata=A("10.0.0.1")))
    data = bytearray(record.pack())
    at = data.index(b"\xc0\x0c")
    data[at : at + 2] = (b"\x3f" + b"a" * 63) * 5 + b"\x00"
    with pytest.raises(DNSError):
        message.decode_response(bytes(data))


def test_a_client_that_asks_and_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """And holds few answers in memory until then."""
    monkeypatch.setattr(server, "_IDLE_SECONDS", 0.5)
    made = 0

    async def serve(request: Request) -> Response:
        nonlocal made
        made += 1
        return Response(answer=tuple(RR("web.default", 1, rdata=A("10.0.0.1")) for _ in range(300)))

    async def ask() -> bool:
        """Whether the server ends the connection, however long a busy machine takes for it."""
        listening = await asyncio.start_server(lambda r, w: server.serve_stream(r, w, serve), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2], limit=1024)
        one = query(QUESTION)
        try:
            async with asyncio.timeout(200):
                while True:
                    writer.write((len(one).to_bytes(2, "big") + one) * 100)
                    await writer.drain()
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            listening.close()
            writer.transport.abort()
            assert reader is not None

    assert asyncio.run(ask())
    assert made < 5000
