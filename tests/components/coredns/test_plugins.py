"""Messages and the plugins around the kubernetes one."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dnslib import AAAA, CNAME, EDNS0, MX, QTYPE, RR, SOA, TXT, A, DNSHeader, DNSQuestion, DNSRecord

from kubewire.components.base.prometheus import Registry
from kubewire.components.coredns import corefile
from kubewire.components.coredns.instance import Instance
from kubewire.components.coredns.message import RCODES, Request, Response, decode, encode, question_for
from kubewire.components.coredns.plugin import Setup, Site
from kubewire.components.coredns.plugins import cache, loadbalance
from kubewire.components.coredns.server import answer


def reply_to(instance: Instance, query: bytes, transport: str = "udp") -> bytes | None:
    return asyncio.run(answer(query, lambda request: instance.resolve(53, request), transport, "10.0.0.1:1"))


def ask(text: str, name: str, qtype: str = "A") -> DNSRecord:
    data = reply_to(Instance.build(corefile.parse(text)), DNSRecord.question(name, qtype).pack())
    assert data is not None
    return DNSRecord.parse(data)


HOSTS = ". {\n hosts /nowhere {\n  192.0.2.1 one.test two.test\n  192.0.2.2 one.test\n  2001:db8::1 one.test\n }\n}"
MANY = "\n".join(f"  192.0.{i // 250}.{i % 250} many.test" for i in range(100))


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        pytest.param(DNSRecord(DNSHeader(id=7), questions=[DNSQuestion("a."), DNSQuestion("b.")]).pack(), "FORMERR",
                     id="two questions"),
        pytest.param(DNSRecord(DNSHeader(id=7)).pack(), "FORMERR", id="no question"),
        pytest.param(DNSRecord(DNSHeader(id=7, opcode=5), q=DNSQuestion("a.")).pack(), "NOTIMP", id="update"),
        pytest.param(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\x3fabc", "FORMERR", id="cut off"),
        pytest.param(DNSRecord(DNSHeader(id=7), q=DNSQuestion("a.", qclass=3)).pack(), "REFUSED", id="class CHAOS"),
        pytest.param(DNSRecord(DNSHeader(id=7), q=DNSQuestion("a.")).pack(), "REFUSED", id="no zone of ours"),
    ],
)  # fmt: skip
def test_questions_that_are_not_answered(data, rcode):
    reply = reply_to(Instance.build(corefile.parse("example.org {\n errors\n}")), data)
    assert reply is not None
    assert reply[:2] == b"\0\7"
    assert RCODES[reply[3] & 0xF] == rcode


@pytest.mark.parametrize("data", [b"", b"\0" * 11, DNSRecord(DNSHeader(qr=1), q=DNSQuestion("a.")).pack()])
def test_what_is_no_question_gets_no_answer(data):
    assert reply_to(Instance.build(corefile.parse(HOSTS)), data) is None


def test_an_unknown_edns_version_is_refused_with_badvers():
    query = DNSRecord.question("one.test")
    query.add_ar(EDNS0(version=1, udp_len=1232))
    reply = DNSRecord.parse(reply_to(Instance.build(corefile.parse(HOSTS)), query.pack()))
    assert (reply.ar[0].ttl >> 24, reply.header.rcode) == (1, 0)


@pytest.mark.parametrize(
    ("size", "transport", "truncated", "at_most"),
    [(0, "udp", 1, 512), (1232, "udp", 1, 1232), (4096, "udp", 0, 4096), (0, "tcp", 0, 65535)],
    ids=["no EDNS0", "EDNS0 1232", "EDNS0 4096", "TCP"],
)
def test_udp_answers_are_cut_to_what_the_client_takes(size, transport, truncated, at_most):
    query = DNSRecord.question("many.test")
    if size:
        query.add_ar(EDNS0(udp_len=size))
    instance = Instance.build(corefile.parse(f". {{\n hosts /nowhere {{\n{MANY}\n }}\n}}"))
    data = reply_to(instance, query.pack(), transport)
    assert data is not None
    assert len(data) <= at_most
    reply = DNSRecord.parse(data)
    assert reply.header.tc == truncated
    assert (len(reply.rr) == 100) is not bool(truncated)
    assert len(reply.rr) > 20
    assert any(rr.rtype == QTYPE.OPT for rr in reply.ar) is bool(size)


def test_hosts_answers_names_and_addresses():
    assert sorted(str(rr.rdata) for rr in ask(HOSTS, "ONE.test").rr) == ["192.0.2.1", "192.0.2.2"]
    assert [str(rr.rdata) for rr in ask(HOSTS, "one.test", "AAAA").rr] == ["2001:db8::1"]
    assert [str(rr.rdata) for rr in ask(HOSTS, "1.2.0.192.in-addr.arpa", "PTR").rr] == ["one.test.", "two.test."]
    nodata = ask(HOSTS, "two.test", "AAAA")
    assert (nodata.header.rcode, nodata.rr) == (0, [])
    assert RCODES[ask(HOSTS, "three.test").header.rcode] == "SERVFAIL"


def test_hosts_reads_its_file_and_falls_through(tmp_path: Path):
    file = tmp_path / "hosts"
    file.write_text("192.0.2.9 file.test # comment\nnonsense line\n")
    template = 'template IN A x.test {\n answer "x.test 1 IN A 192.0.2.3"\n }'
    text = f". {{\n hosts {file} {{\n ttl 7\n fallthrough\n }}\n {template}\n}}"
    (record,) = ask(text, "file.test").rr
    assert (str(record.rdata), record.ttl) == ("192.0.2.9", 7)
    assert [str(rr.rdata) for rr in ask(text, "x.test").rr] == ["192.0.2.3"]


@pytest.mark.parametrize(
    ("rule", "name", "owner"),
    [
        ("name old.test one.test", "old.test", "one.test."),
        ("name exact old.test one.test answer auto", "old.test", "old.test."),
        ("name suffix .lab .test answer auto", "one.lab", "one.lab."),
        ("name suffix .lab .test", "one.lab", "one.test."),
        ("name prefix x- on", "x-e.test", "one.test."),
        ("name substring zwei ne", "ozwei.test", "one.test."),
        ("name regex (.*)\\.web\\.lab {1}.test answer name (.*)\\.test {1}.web.lab", "one.web.lab", "one.web.lab."),
        ("stop name regex (.*)[.]web[.]lab {1}.test", "one.web.lab", "one.test."),
    ],
)
def test_rewrite_changes_the_question_and_where_asked_the_answer(rule, name, owner):
    reply = ask(HOSTS.replace(" hosts", f" rewrite {rule}\n hosts"), name)
    assert str(reply.q.qname) == f"{name}."
    assert {str(rr.rname) for rr in reply.rr} == {owner}
    assert len(reply.rr) == 2


def test_rewrite_of_types():
    assert len(ask(HOSTS.replace(" hosts", " rewrite type AAAA A\n hosts"), "one.test", "AAAA").rr) == 2


def test_templates_answer_by_pattern():
    text = (
        '. {\n template IN A test {\n  match "^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)[.]test[.]$"\n'
        '  answer "{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}"\n }\n'
        " template IN ANY none {\n  rcode NXDOMAIN\n }\n}"
    )
    assert str(ask(text, "ip-3-4.test").rr[0].rdata) == "10.0.3.4"
    assert RCODES[ask(text, "other.test").header.rcode] == "NXDOMAIN"
    assert RCODES[ask(text, "a.none", "TXT").header.rcode] == "NXDOMAIN"


def test_loadbalance_moves_addresses_and_keeps_cnames_first():
    records = (
        RR("a.test", QTYPE.CNAME, rdata=CNAME("b.test")),
        *(RR("b.test", QTYPE.A, rdata=A(f"192.0.2.{i}")) for i in range(5)),
    )

    async def following(_: Request) -> Response:
        return Response(answer=records)

    plugin = loadbalance.setup(_setup("loadbalance"))
    seen = set()
    for _ in range(50):
        response = asyncio.run(plugin.serve(question_for("a.test.", 1), following))
        assert response.answer[0].rtype == QTYPE.CNAME
        assert {id(rr) for rr in response.answer} == {id(rr) for rr in records}
        seen.add(str(response.answer[1].rdata))
    assert len(seen) > 1


def _setup(text: str) -> Setup:
    (block,) = corefile.parse(f". {{\n{text}\n}}")

    async def resolve(_: Request) -> Response:
        return Response()

    return Setup(list(block.directives), (".",), "dns://:53", Registry(), Site(), resolve, {})


class Backend:
    """Counts what reaches it; answers with a counter in a TXT record."""

    def __init__(self, response: Callable[[int], Response]) -> None:
        self.asked = 0
        self._response = response

    async def __call__(self, request: Request) -> Response:
        self.asked += 1
        return self._response(self.asked)


def txt(ttl: int) -> Callable[[int], Response]:
    return lambda count: Response(answer=(RR("a.test", QTYPE.TXT, ttl=ttl, rdata=TXT(str(count))),))


def denial(rcode: int, ttl: int) -> Callable[[int], Response]:
    soa = RR("test", QTYPE.SOA, ttl=ttl, rdata=SOA("ns.test", "h.test", (1, 2, 3, 4, ttl)))
    return lambda _: Response(rcode, authority=(soa,))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def cached(text: str, backend: Backend, waits: list[float], qtype: int = 16) -> list[Response]:
    """The answers to one question at 0 and then after each wait (seconds)."""
    setup, clock = _setup(text), Clock()
    plugin = cache.Cache(setup, cache.setup(setup)._settings, clock)
    out = []

    async def run() -> None:
        for wait in [0.0, *waits]:
            clock.now += wait
            out.append(await plugin.serve(question_for("a.test.", qtype), backend))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(run())
    return out


@pytest.mark.parametrize(
    ("text", "response", "waits", "asked"),
    [
        pytest.param("cache", txt(60), [59.0], 1, id="within the TTL"),
        pytest.param("cache", txt(60), [61.0], 2, id="after the TTL"),
        pytest.param("cache 30", txt(60), [31.0], 2, id="the limit is below the TTL"),
        pytest.param("cache", txt(0), [4.0], 1, id="at least 5 s"),
        pytest.param("cache", denial(3, 60), [59.0], 1, id="NXDOMAIN"),
        pytest.param("cache", denial(0, 60), [61.0], 2, id="NODATA after its TTL"),
        pytest.param("cache", lambda _: Response(3), [1.0], 2, id="NXDOMAIN without SOA"),
        pytest.param("cache", lambda _: Response(2), [4.0, 2.0], 2, id="SERVFAIL for 5 s"),
        pytest.param("cache {\n servfail 0s\n}", lambda _: Response(2), [1.0], 2, id="servfail 0"),
        pytest.param("cache {\n disable success test\n}", txt(60), [1.0], 2, id="success disabled"),
        pytest.param("cache {\n disable denial\n}", denial(3, 60), [1.0], 2, id="denial disabled"),
        pytest.param("cache other.test", txt(60), [1.0], 2, id="another zone"),
        pytest.param("cache", lambda _: replace(txt(60)(1), truncated=True), [1.0], 2, id="truncated"),
        pytest.param("cache {\n prefetch 1 1m 50%\n}", txt(60), [10.0, 30.0, 1.0], 2, id="prefetched"),
    ],
)
def test_answers_are_kept_as_long_as_they_may(text, response, waits, asked):
    backend = Backend(response)
    cached(text, backend, waits)
    assert backend.asked == asked


def test_the_ttl_counts_down_and_a_stale_answer_has_none():
    ttls = [r.answer[0].ttl for r in cached("cache {\n serve_stale\n}", Backend(txt(60)), [10.0, 100.0, 0.0])]
    assert ttls == [60, 50, 0, 60]


def test_names_are_kept_apart_by_type():
    setup = _setup("cache")
    plugin, backend = cache.setup(setup), Backend(txt(60))

    async def run() -> None:
        for qtype in (1, 16, 1):
            await plugin.serve(question_for("a.test.", qtype), backend)

    asyncio.run(run())
    assert backend.asked == 2


class Upstream:
    """A DNS server on loopback, by UDP and TCP; what it answers and how often it keeps silent is the test's."""

    def __init__(self, *, silent: int = 0) -> None:
        self.silent = silent
        self.questions: list[Any] = []
        self.port = 0

    async def __aenter__(self) -> Upstream:
        loop = asyncio.get_running_loop()
        upstream = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                reply = upstream.reply(data, "udp")
                if reply:
                    self.transport.sendto(reply, addr)

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            reply = self.reply(await reader.readexactly(size), "tcp")
            writer.write(struct.pack("!H", len(reply)) + reply)
            writer.close()

        while not self.port:
            self.tcp = await asyncio.start_server(stream, "127.0.0.1", 0)
            address = self.tcp.sockets[0].getsockname()
            try:
                self.udp, _ = await loop.create_datagram_endpoint(Udp, local_addr=address)
            except OSError:  # taken for UDP by somebody else
                self.tcp.close()
            else:
                self.port = address[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.udp.close()
        self.tcp.close()

    def reply(self, data: bytes, transport: str) -> bytes:
        query = DNSRecord.parse(data)
        name = str(query.q.qname)
        if name == ".":
            return query.reply().pack()
        self.questions.append((name, transport))
        if self.silent:
            self.silent -= 1
            return b""
        reply = query.reply(aa=1, ra=1)
        if name.startswith("big") and transport == "udp":
            reply.header.tc = 1
        elif name.startswith("nx"):
            reply.header.rcode = 3
        else:
            reply.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A("192.0.2.1")), RR(name, QTYPE.MX, rdata=MX("m.test")))
            reply.add_answer(RR(name, QTYPE.AAAA, rdata=AAAA("2001:db8::1")))
        return reply.pack()


def forwarded(
    options: str, name: str, work: Callable[[Instance, Any], Awaitable[Any]] | None = None, **how: Any
) -> Any:
    """(reply, questions the upstreams saw) of one question to a server that forwards to one upstream."""

    async def run() -> Any:
        async with Upstream(**how) as upstream:
            text = f". {{\n forward . 127.0.0.1:{upstream.port} {{\n{options}\n}}\n}}"
            instance = Instance.build(corefile.parse(text))
            query = DNSRecord.question(name)
            data = await answer(query.pack(), lambda r: instance.resolve(53, r), "udp", "10.0.0.1:1")
            assert data is not None
            for plugin in instance.plugins:
                for sent in plugin._upstreams:  # type: ignore[attr-defined]
                    sent.close()
            return DNSRecord.parse(data), query, upstream.questions

    return asyncio.run(run())


def test_forward_passes_the_question_on_and_the_answer_back():
    reply, query, questions = forwarded("", "WWW.example.test")
    assert reply.header.id == query.header.id
    assert (reply.header.ra, reply.header.aa) == (1, 0)
    assert [str(rr.rdata) for rr in reply.rr] == ["192.0.2.1", "10 m.test.", "2001:db8::1"]
    assert questions == [("WWW.example.test.", "udp")]


def test_forward_passes_denials_on():
    assert RCODES[forwarded("", "nx.example.test")[0].header.rcode] == "NXDOMAIN"


@pytest.mark.parametrize(
    ("options", "name", "truncated", "transports"),
    [
        ("", "big.test", 1, ["udp"]),
        ("prefer_udp", "big.test", 0, ["udp", "tcp"]),
        ("force_tcp", "www.test", 0, ["tcp"]),
    ],
)
def test_forward_chooses_the_transport(options, name, truncated, transports):
    reply, _, questions = forwarded(options, name)
    assert reply.header.tc == truncated
    assert [transport for _, transport in questions] == transports


def test_forward_tries_again_when_an_upstream_is_silent(monkeypatch):
    monkeypatch.setattr("kubewire.components.coredns.upstream._READ_SECONDS", 0.1)
    reply, _, questions = forwarded("", "www.test", silent=1)
    assert len(reply.rr) == 3
    assert len(questions) == 2


def test_forward_to_a_closed_port_is_servfail_at_once():
    async def run() -> bytes | None:
        async with Upstream() as upstream:
            port = upstream.port
        instance = Instance.build(corefile.parse(f". {{\n forward . 127.0.0.1:{port}\n}}"))
        query = DNSRecord.question("www.test").pack()
        return await asyncio.wait_for(answer(query, lambda r: instance.resolve(53, r), "udp", "x:1"), 2)

    data = asyncio.run(run())
    assert data is not None
    assert RCODES[data[3] & 0xF] == "SERVFAIL"


def test_except_names_are_not_forwarded():
    reply, _, questions = forwarded("except corp.test", "a.corp.test")
    assert RCODES[reply.header.rcode] == "SERVFAIL"
    assert questions == []


def test_decode_and_encode_are_inverse_for_the_question():
    query = DNSRecord.question("WwW.Example.Test", "AAAA")
    request = decode(query.pack())
    reply = DNSRecord.parse(encode(request, Response()))
    assert str(reply.q.qname) == "WwW.Example.Test."
    assert (request.name, request.type_name) == ("www.example.test.", "AAAA")
