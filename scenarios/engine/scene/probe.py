"""The probe program: sends HTTP, TCP, UDP and ICMP requests from where it runs, and reports the
results.

The runner starts it in the namespaces of a host or pod (LabHandle.start). Its argument is
{"requests": [...]} as JSON, its output {"results": [...]} in the same order. It uses sockets and
not commands such as curl, because images of pods need not contain these, and because a socket also
gives the local address, the exact error and its ICMP sender. It imports little, so that it starts
within milliseconds.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

#: errno -> name of the error in scenarios ("error: refused").
ERRORS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENONET: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EMSGSIZE: "too-big",
    errno.EPERM: "prohibited",
    errno.EACCES: "prohibited",
}
BODY_LIMIT = 65536
FAMILIES = {"": socket.AF_UNSPEC, "IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}


def main(argv: Sequence[str]) -> int:
    """Performs requests. argv: [JSON]. Returns 0, also if requests fail."""
    requests = json.loads(argv[0])["requests"]
    sys.stdout.write(json.dumps({"results": [perform(request) for request in requests]}))
    sys.stdout.flush()
    return 0


def perform(request: Mapping[str, Any]) -> dict[str, Any]:
    """Performs a request. With `repeat`, the result is {"several": [...]}."""
    if "repeat" not in request:
        return once(request)
    return {"several": [once(request) for _ in range(request["repeat"])]}


def once(request: Mapping[str, Any]) -> dict[str, Any]:
    """Performs one exchange. The result has ms (its duration in milliseconds) and, if it failed,
    error and message."""
    started = time.monotonic()
    result: dict[str, Any] = {}
    try:
        PROBES[request["probe"]](request, result)
    except TimeoutError:
        result |= {"error": "timeout", "message": f"no answer within {request['timeout']:g} s"}
    except socket.gaierror as error:
        result |= {"error": "dns", "message": f"{request.get('host')}: {error.strerror}"}
    except OSError as error:
        result |= {
            "error": ERRORS.get(error.errno or 0, "other"),
            "message": os.strerror(error.errno or 0),
        }
    except ValueError as error:
        result |= {"error": "protocol", "message": str(error)}
    return {**result, "ms": (time.monotonic() - started) * 1000}


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(
    request: Mapping[str, Any],
    result: dict[str, Any],
    kind: int,
    deadline: float,
) -> socket.socket:
    wanted = FAMILIES[request.get("family", "")]
    found = socket.getaddrinfo(request["host"], request["port"], wanted, kind)
    family, kind, protocol, _, address = found[0]
    result["remote"] = _text(address)
    sock = socket.socket(family, kind, protocol)
    sock.settimeout(_remaining(deadline))
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    result["local"] = _text(sock.getsockname())
    return sock


def _text(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def http(request: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Sends one request by HTTP/1.1 (RFC 9112) on a new connection."""
    deadline = time.monotonic() + request["timeout"]
    sock = _connect(request, result, socket.SOCK_STREAM, deadline)
    with sock:
        sock.sendall(_http_request(request))
        raw = b""
        while len(raw) < BODY_LIMIT * 2:
            sock.settimeout(_remaining(deadline))
            part = sock.recv(65536)
            if not part:
                break
            raw += part
    result |= parse_response(raw, request["method"])


def _http_request(request: Mapping[str, Any]) -> bytes:
    body = str(request.get("body", "")).encode()
    headers = {"Host": request["authority"], "User-Agent": "kubewire-probe", "Accept": "*/*"}
    headers |= request.get("headers") or {}
    headers["Connection"] = "close"
    if body:
        headers["Content-Length"] = str(len(body))
    lines = [
        f"{request['method']} {request['path']} HTTP/1.1",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def parse_response(raw: bytes, method: str = "GET") -> dict[str, Any]:
    """Reads a response: status, headers (with lower-case names), body as text. Raises ValueError
    for a malformed or incomplete one."""
    if not raw:
        raise ValueError("the connection was closed without an answer")
    head, separator, body = raw.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = start.partition(" ")
    if not separator or not version.startswith("HTTP/"):
        raise ValueError(f"not an HTTP response: {raw[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunk(body)
    length = headers.get("content-length")
    if method != "HEAD" and length and len(body) < int(length):
        raise ValueError(f"the connection was closed after {len(body)} of {length} bytes")
    return {
        "status": int(rest[:3]),
        "headers": headers,
        "body": body[:BODY_LIMIT].decode(errors="replace"),
        "size": len(body),
    }


def _unchunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size.split(b";")[0], 16)
        if not count:
            break
        body += data[:count]
        data = data[count + 2 :]
    return body


def tcp(request: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Connects; if there is something to send, sends it and reads the answer."""
    deadline = time.monotonic() + request["timeout"]
    with _connect(request, result, socket.SOCK_STREAM, deadline) as sock:
        result["body"] = ""
        if "send" in request:
            sock.sendall(str(request["send"]).encode())
            sock.settimeout(_remaining(deadline))
            result["body"] = sock.recv(BODY_LIMIT).decode(errors="replace")


def udp(request: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Sends one datagram and reads the answer. The socket is connected, so that an ICMP error is
    reported to it (udp(7))."""
    deadline = time.monotonic() + request["timeout"]
    with _connect(request, result, socket.SOCK_DGRAM, deadline) as sock:
        sock.send(str(request["send"]).encode())
        sock.settimeout(_remaining(deadline))
        result["body"] = sock.recv(BODY_LIMIT).decode(errors="replace")


ICMP_ECHO = 8
ICMP_REPLY = 0
ICMP6_ECHO = 128
ICMP6_REPLY = 129
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DO = 2
IP_RECVERR = 11
MSG_ERRQUEUE = 0x2000
IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
SO_EE_ORIGIN_ICMP = 2
SO_EE_ORIGIN_ICMP6 = 3
#: (origin, type, code) in struct sock_extended_err -> name of the error in scenarios.
ICMP_ERRORS = {
    (SO_EE_ORIGIN_ICMP, 3, 0): "unreachable",
    (SO_EE_ORIGIN_ICMP, 3, 1): "unreachable",
    (SO_EE_ORIGIN_ICMP, 3, 3): "refused",
    (SO_EE_ORIGIN_ICMP, 3, 4): "too-big",
    (SO_EE_ORIGIN_ICMP, 11, 0): "ttl",
    (SO_EE_ORIGIN_ICMP6, 1, 0): "unreachable",
    (SO_EE_ORIGIN_ICMP6, 1, 1): "prohibited",
    (SO_EE_ORIGIN_ICMP6, 1, 3): "unreachable",
    (SO_EE_ORIGIN_ICMP6, 1, 4): "refused",
    (SO_EE_ORIGIN_ICMP6, 2, 0): "too-big",
    (SO_EE_ORIGIN_ICMP6, 3, 0): "ttl",
}


def ping(request: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Sends one ICMP echo request (RFC 792, RFC 4443). Keys of request: size (bytes of data), df
    (true: the packet must not be fragmented), ttl."""
    deadline = time.monotonic() + request["timeout"]
    wanted = FAMILIES[request.get("family", "")]
    family, _, _, _, address = socket.getaddrinfo(request["host"], None, wanted, socket.SOCK_RAW)[0]
    result["remote"] = address[0]
    ipv6 = family == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        for level, option, value in _ping_options(ipv6, request):
            sock.setsockopt(level, option, value)
        sock.connect(address)
        result["local"] = sock.getsockname()[0]
        identifier = os.getpid() & 0xFFFF
        try:
            type_ = ICMP6_ECHO if ipv6 else ICMP_ECHO
            sock.send(echo_request(identifier, 1, request.get("size", 56), type_))
        except OSError:
            # An error that the kernel detects itself, such as a too small MTU, is queued as well.
            if not _icmp_error(sock, result):
                raise
            return
        _await_reply(sock, ipv6, identifier, deadline, result)


def _ping_options(ipv6: bool, request: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
    options = [(level, IPV6_RECVERR if ipv6 else IP_RECVERR, 1)]
    if ipv6:
        options.append((level, socket.IPV6_RECVHOPLIMIT, 1))
    if request.get("df"):
        options.append((level, IPV6_MTU_DISCOVER if ipv6 else IP_MTU_DISCOVER, IP_PMTUDISC_DO))
    if "ttl" in request:
        options.append((level, socket.IPV6_UNICAST_HOPS if ipv6 else socket.IP_TTL, request["ttl"]))
    return options


def echo_request(identifier: int, sequence: int, size: int, kind: int = ICMP_ECHO) -> bytes:
    """An ICMP echo request with its checksum (RFC 1071). For ICMPv6 the kernel computes the
    checksum (RFC 3542, 3.1)."""
    data = bytes(n & 0xFF for n in range(size))
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + data
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _await_reply(
    sock: socket.socket,
    ipv6: bool,
    identifier: int,
    deadline: float,
    result: dict[str, Any],
) -> None:
    wanted = ICMP6_REPLY if ipv6 else ICMP_REPLY
    while True:
        select.select([sock], [], [sock], _remaining(deadline))
        if _icmp_error(sock, result):
            return
        try:
            packet, control, _, source = sock.recvmsg(65536, 512, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        # An IPv4 raw socket returns the packet with its header (raw(7)). An IPv6 one returns only
        # the message, and the hop limit as ancillary data (ipv6(7)).
        header = 0 if ipv6 else (packet[0] & 0x0F) * 4
        ttl = _hop_limit(control) if ipv6 else packet[8]
        kind, _, _, answered, _ = struct.unpack_from("!BBHHH", packet, header)
        if kind == wanted and answered == identifier:
            result |= {"source": source[0], "ttl": ttl, "size": len(packet) - header - 8}
            return


def _hop_limit(control: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
            return int(struct.unpack("=i", data)[0])
    return 0


def _icmp_error(sock: socket.socket, result: dict[str, Any]) -> bool:
    """Reads the socket's error queue (ip(7), IP_RECVERR): struct sock_extended_err, followed by the
    address of the ICMP message's sender. Returns whether there was an error."""
    try:
        _, control, _, _ = sock.recvmsg(1024, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except (BlockingIOError, OSError):
        return False
    for level, kind, value in control:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            number, origin, icmp_type, code, _, info = struct.unpack_from("=IBBBBI", value)
            sender = _offender(origin, value)
            name = ICMP_ERRORS.get((origin, icmp_type, code), ERRORS.get(number, "other"))
            mtu = f", mtu {info}" if name == "too-big" else ""
            result |= {
                "error": name,
                "message": f"{os.strerror(number)}, reported by {sender}{mtu}",
                "source": sender,
            }
            return True
    return False


def _offender(origin: int, value: bytes) -> str:
    """The sender of the ICMP message: a sockaddr_in or sockaddr_in6 that follows the 16 bytes of
    the structure (SO_EE_OFFENDER)."""
    if origin == SO_EE_ORIGIN_ICMP and len(value) >= 24:
        return socket.inet_ntop(socket.AF_INET, value[20:24])
    if origin == SO_EE_ORIGIN_ICMP6 and len(value) >= 40:
        return socket.inet_ntop(socket.AF_INET6, value[24:40])
    return "this host"


PROBES = {"http": http, "tcp": tcp, "udp": udp, "ping": ping}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
