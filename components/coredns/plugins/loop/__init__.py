"""loop: ends the process when queries are forwarded in a loop (https://coredns.io/plugins/loop/).

At the start the plugin sends itself a HINFO query for a random name. The chain forwards it like any
other unknown name. If it arrives more than twice, some upstream is this server, perhaps by way of
others: a pod with dnsPolicy Default on a node whose resolv.conf points to 127.0.0.53 is the usual
case.
"""

from __future__ import annotations

import asyncio
import random
import socket

from kubewire.components.coredns.message import HINFO, Request, Response, encode_query, question_for
from kubewire.components.coredns.plugin import Next, Setup, Zones, is_subdomain

_SEEN_TOO_OFTEN = 2
_TRIES = 5
_TRY_SECONDS = 2.0
_GIVE_UP_SECONDS = 30.0


class Loop:
    name = "loop"

    def __init__(self, setup: Setup) -> None:
        self._zones: Zones = setup.zones
        self._fatal = setup.fatal
        self._port = setup.port
        self._query = f"{random.getrandbits(62)}.{random.getrandbits(62)}.{self._zones[0]}".replace(
            "..",
            ".",
        )
        self._seen = 0
        self._active = True

    async def serve(self, request: Request, following: Next) -> Response:
        if self._active and request.qtype == HINFO and is_subdomain(request.name, self._zones[0]):
            self._seen += request.name == self._query
            if self._seen > _SEEN_TOO_OFTEN:
                self._active = False
                self._fatal(
                    f"plugin/loop: Loop ({request.peer} -> :{self._port}) detected for zone "
                    f'"{self._zones[0]}", see https://coredns.io/plugins/loop#troubleshooting. '
                    f'Query: "HINFO {self._query}"'
                )
        return await following(request)

    async def run(self) -> None:
        """Sends the query until it is answered, at most five times; ends 30 seconds later."""
        data = encode_query(question_for(self._query, HINFO), random.getrandbits(16))
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            for _ in range(_TRIES):
                try:
                    await loop.sock_connect(sock, ("127.0.0.1", self._port))
                    await loop.sock_sendall(sock, data)
                    async with asyncio.timeout(_TRY_SECONDS):
                        await loop.sock_recv(sock, 4096)
                    break
                except OSError:
                    await asyncio.sleep(_TRY_SECONDS)
        await asyncio.sleep(_GIVE_UP_SECONDS)
        self._active = False


def setup(setup: Setup) -> Loop:
    (line,) = setup.lines[:1]
    if line.args:
        line.wrong_arguments()
    return Loop(setup)
