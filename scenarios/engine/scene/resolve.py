"""The DNS probe program: looks names up as the stub resolver of its pod or host does, and reports
every query that it sent.

A short name in a pod leads to several queries, because the resolver tries the domains of the search
list, and ndots decides whether it tries them before or after the name itself (resolv.conf(5)).
Scenarios are often about these queries, and the C library does not show them. So this program reads
/etc/resolv.conf itself and sends the queries. Argument and output have the same form as in
kubewire.scenarios.engine.scene.probe.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dnslib

from kubewire.scenarios.engine.scene.probe import ERRORS

DNS_PORT = 53


@dataclass(frozen=True)
class ResolverConfig:
    """The content of resolv.conf; the defaults are those of the C library."""

    nameservers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1

    @classmethod
    def parse(cls, text: str) -> ResolverConfig:
        """Reads the format of resolv.conf(5)."""
        lines = [line.split() for line in text.splitlines() if line.strip() and line[0] not in "#;"]
        servers = tuple(words[1] for words in lines if words[0] == "nameserver" and len(words) > 1)
        search: tuple[str, ...] = ()
        ndots = 1
        for keyword, *values in lines:
            if keyword in ("search", "domain"):
                search = tuple(values)
            elif keyword == "options":
                ndots = next((int(v[6:]) for v in values if v.startswith("ndots:")), ndots)
        return cls(servers or cls.nameservers, search, ndots)

    def candidates(self, name: str) -> Iterator[str]:
        """The absolute names that the stub resolver tries, in this order."""
        if name.endswith("."):
            yield name
            return
        first = name.count(".") >= self.ndots
        if first:
            yield name + "."
        for domain in self.search:
            yield f"{name}.{domain.rstrip('.')}."
        if not first:
            yield name + "."


def main(argv: Sequence[str]) -> int:
    """Performs requests. argv: [JSON]. Returns 0, also if requests fail."""
    requests = json.loads(argv[0])["requests"]
    sys.stdout.write(json.dumps({"results": [perform(request) for request in requests]}))
    sys.stdout.flush()
    return 0


def perform(request: Mapping[str, Any]) -> dict[str, Any]:
    """Performs one lookup. Keys of request: name, type, timeout (seconds); optional: server
    (default: that of resolv.conf), search (default: true), transport (udp or tcp)."""
    started = time.monotonic()
    config = ResolverConfig.parse(Path("/etc/resolv.conf").read_text())
    wanted = reverse_name(request["name"]) if request["type"] == "PTR" else request["name"]
    names = list(config.candidates(wanted)) if request.get("search", True) else [_fqdn(wanted)]
    server = request.get("server") or config.nameservers[0]
    result: dict[str, Any] = {"server": server, "asked": []}
    for name in names:
        result |= _ask(name, server, request, started + request["timeout"])
        result["asked"].append({"name": name, "rcode": result.get("rcode", result.get("error"))})
        if result.get("answers") or "error" in result:
            break
    return {**result, "ms": (time.monotonic() - started) * 1000}


def reverse_name(text: str) -> str:
    """The name under which an address is looked up: 10.96.0.1 -> 1.0.96.10.in-addr.arpa. (RFC 1035,
    3.5; for IPv6 RFC 3596, 2.5). A name stays as it is."""
    try:
        return f"{ip_address(text).reverse_pointer}."
    except ValueError:
        return text


def _fqdn(name: str) -> str:
    return name if name.endswith(".") else name + "."


def _ask(name: str, server: str, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    query = dnslib.DNSRecord.question(name, request["type"])
    host, port = _endpoint(server)
    try:
        raw = _exchange(query.pack(), host, port, request.get("transport") == "tcp", deadline)
        return _read(dnslib.DNSRecord.parse(raw), name)
    except TimeoutError:
        return {
            "error": "timeout",
            "message": f"no answer from {server} within {request['timeout']:g} s",
            "answers": [],
        }
    except OSError as error:
        return {
            "error": ERRORS.get(error.errno or 0, "other"),
            "message": f"{server}: {error}",
            "answers": [],
        }
    except dnslib.DNSError as error:
        return {"error": "protocol", "message": f"{server}: {error}", "answers": []}


def _endpoint(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return (host, int(port)) if host and "." in host else (server, DNS_PORT)


def _exchange(query: bytes, host: str, port: int, tcp: bool, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        sock.settimeout(left)
        sock.connect((host, port))
        if not tcp:
            sock.send(query)
            answer = sock.recv(65535)
            while answer[:2] != query[:2]:  # a late answer to an earlier query
                answer = sock.recv(65535)
            return answer
        sock.sendall(len(query).to_bytes(2) + query)
        stream = sock.makefile("rb")
        return stream.read(int.from_bytes(stream.read(2)))


def _read(reply: Any, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "rcode": str(dnslib.RCODE[reply.header.rcode]),
        "authoritative": bool(reply.header.aa),
        "answers": [_record(record) for record in reply.rr],
        "authority": [_record(record) for record in reply.auth],
        "additional": [_record(record) for record in reply.ar if record.rtype != dnslib.QTYPE.OPT],
    }


def _record(record: Any) -> dict[str, Any]:
    return {
        "name": str(record.rname),
        "type": str(dnslib.QTYPE[record.rtype]),
        "ttl": int(record.ttl),
        "data": str(record.rdata),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
