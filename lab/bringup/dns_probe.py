"""Waits until the cluster's DNS answers a query from this host. Bring-up forks it onto each node in
its last step.

The API server may show CoreDNS as Ready before this node's kube-proxy has written the rules for its
ClusterIP, so only an answer to a real packet shows that pods on this node can resolve names.
"""

from __future__ import annotations

import os
import socket
import struct
import time

_PORT = 53
_TRY_SECONDS = 0.2


def question(name: str, number: int) -> bytes:
    """A DNS query for the A record of name, with this message id (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack(">HH", 1, 1)


def main(argv: list[str]) -> int:
    """Ask until there is an answer. argv: address of the server, name, seconds, and optionally
    "any", to accept any answer instead of only NOERROR. Returns 0 if one came in that time, else
    1."""
    server = argv[0]
    name = argv[1]
    seconds = float(argv[2])
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
            # While the Service has no endpoint, kube-proxy rejects the packet and the error comes
            # at once; do not ask in a busy loop.
            time.sleep(max(0.0, began + 0.02 - time.monotonic()))
            return False
    is_ours = len(answer) > 3 and answer[:2] == struct.pack(">H", number)
    return is_ours and (any_answer or not answer[3] & 0x0F)
