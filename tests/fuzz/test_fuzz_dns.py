"""DNS: a message gets an answer of its id, or none; an upstream's answer is read or refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from dnslib import AAAA, RR, A, DNSError, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.coredns import message, server
from kubewire.components.coredns.message import Ignored, Rejected, Request, Response
from tests.fuzz.mutation import mutated

QUERY = DNSRecord.question("web.default.svc.cluster.local", "A").pack()
EDNS = QUERY[:11] + b"\x01" + QUERY[12:] + b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00"
POINTER = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"\x01a\xc0\x0c\x00\x01\x00\x01"
LONG = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + (b"\x3f" + b"a" * 63) * 5 + b"\x00\x00\x01\x00\x01"
QUERIES = (QUERY, EDNS, POINTER, LONG)


def upstream_answer() -> bytes:
    record = DNSRecord.parse(QUERY).reply()
    record.add_answer(RR("web.default.svc.cluster.local", 1, rdata=A("10.0.0.1"), ttl=5))
    record.add_ar(RR("web.default.svc.cluster.local", 28, rdata=AAAA("fd00::1"), ttl=5))
    return bytes(record.pack())


ANSWERS = (upstream_answer(), QUERY, EDNS)


async def serve(request: Request) -> Response:
    return Response(answer=(RR("web.default.svc.cluster.local", 1, rdata=A("10.0.0.1"), ttl=5),) * 40)


def ask(data: bytes, loop: asyncio.AbstractEventLoop) -> None:
    for transport in ("udp", "tcp"):
        reply = loop.run_until_complete(server.answer(data, serve, transport, "10.0.0.9:53"))
        if reply is not None:
            assert reply[:2] == data[:2]
            assert reply[2] & 0x80
            assert len(reply) <= (65535 if transport == "tcp" else 65507)


def test_pointers_and_long_names_are_refused() -> None:
    for data in (POINTER, LONG):
        try:
            message.decode(data)
        except Rejected as rejected:
            assert rejected.rcode == message.FORMERR
        else:
            raise AssertionError("it was taken")


@given(st.binary(max_size=80))
def test_any_datagram(data: bytes) -> None:
    try:
        message.decode(data)
    except (Ignored, Rejected):
        pass


def test_mutated_queries(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for _ in range(examples):
            data = mutated(chance, QUERIES)
            timely(partial(ask, data, loop))


def test_mutated_answers(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    request = message.question_for("web.default.svc.cluster.local.", 1)

    def read(data: bytes) -> None:
        try:
            response = message.decode_response(data)
        except DNSError:
            return
        message.encode(request, response)

    for _ in range(examples):
        data = mutated(chance, ANSWERS)
        timely(partial(read, data))
