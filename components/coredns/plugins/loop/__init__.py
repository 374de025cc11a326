"""loop: a question of our own that comes back to us means that we forward to ourselves; the process ends."""

from __future__ import annotations

import asyncio
import random
import socket

from kubewire.components.coredns.message import HINFO, Request, Response, encode_query, question_for
from kubewire.components.coredns.plugin import Next, Setup, Zones, is_subdomain

_SEEN_TOO_OFTEN = 2
_TRIES, _TRY_SECONDS, _GIVE_UP_SECONDS = 5, 2.0, 30.0


class Loop:
    name = "loop"

    def __init__(self, setup: Setup) -> None:
        self._zones: Zones = setup.zones
        self._fatal, self._port = setup.fatal, setup.port
        self._query = f"{random.getrandbits(62)}.{random.getrandbits(62)}.{self._zones[0]}".replace("..", ".")
        self._seen, self._active = 0, True

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
        """The question is asked once at the start; later on the plugin does nothing."""
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
