"""The probe asks as a resolver does, and takes only an answer to its own question without error."""

import socket
import threading
from collections.abc import Callable

import pytest
from dnslib import RCODE, DNSRecord

from kubewire.lab.bringup import dns_probe


def test_the_question_is_a_well_formed_query() -> None:
    parsed = DNSRecord.parse(dns_probe.question("kubernetes.default.svc.cluster.local", 7))
    assert (parsed.header.id, str(parsed.q.qname)) == (7, "kubernetes.default.svc.cluster.local.")


def answer(record: DNSRecord) -> bytes:
    return bytes(record.reply().pack())


def servfail(record: DNSRecord) -> bytes:
    reply = record.reply()
    reply.header.rcode = RCODE.SERVFAIL
    return bytes(reply.pack())


def somebody_elses(record: DNSRecord) -> bytes:
    reply = record.reply()
    reply.header.id ^= 1
    return bytes(reply.pack())


@pytest.mark.parametrize(("reply", "accepted"), [(answer, True), (servfail, False), (somebody_elses, False)])
def test_only_its_own_answer_without_error_counts(
    reply: Callable[[DNSRecord], bytes], accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(dns_probe, "_PORT", server.getsockname()[1])

        def serve() -> None:
            query, client = server.recvfrom(4096)
            server.sendto(reply(DNSRecord.parse(query)), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert (dns_probe.main(["127.0.0.1", "a.example", "0.1"]) == 0) is accepted
        thread.join(5)
