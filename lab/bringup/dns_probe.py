"""Whether a host gets an answer from the cluster's DNS: forked onto each node at the end of bring-up.

That CoreDNS is Ready is the API's word; that a packet to its ClusterIP is answered takes this node's kube-proxy too.
"""

from __future__ import annotations

import os
import socket
import struct
import time

_PORT = 53
_TRY_SECONDS = 0.2


def question(name: str, number: int) -> bytes:
    """A DNS query for the A record of name (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def main(argv: list[str]) -> int:
    """argv: server address, name, seconds, and "any" where any answer will do. 0 when an answer with NOERROR (any: one)
    came within that time."""
    server, name, seconds = argv[0], argv[1], float(argv[2])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _ask(server, name, "any" in argv[3:]):
            return 0
    return 1


def _ask(server: str, name: str, any_answer: bool) -> bool:
    number = int.from_bytes(os.urandom(2), "big")
    began = time.monotonic()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_TRY_SECONDS)
        try:
            sock.connect((server, _PORT))
            sock.send(question(name, number))
            answer = sock.recv(4096)
        except OSError:
            # Refused comes back at once: kube-proxy knows no endpoint yet.
            time.sleep(max(0.0, began + 0.02 - time.monotonic()))
            return False
    is_ours = len(answer) > 3 and answer[:2] == struct.pack(">H", number)
    return is_ours and (any_answer or not answer[3] & 0x0F)
