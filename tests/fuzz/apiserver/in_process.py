"""The API server without its sockets: requests go into handle(), so that a process answers thousands a second."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from kubewire.components.apiserver import main
from kubewire.components.apiserver.http.server import ApiServer
from kubewire.components.apiserver.options import parse
from kubewire.components.apiserver.store import Store
from tests.components.apiserver.running import Authority, write_key

TOKEN = "fuzz"
#: Seconds after which a request hangs, on a machine that does much else.
_LONGEST = 120.0


@dataclass(frozen=True)
class Answer:
    code: int
    body: Any
    text: bytes


class InProcess:
    """One server with its store in memory."""

    def __init__(self, server: ApiServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        #: Seconds of CPU time that this process took while others waited for the loop. Unlike the clock's, they do not
        #: depend on what else the machine does.
        self.longest_turn = 0.0
        self._loop = loop

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """headers: with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = _request(method, path, sent | {"Authorization": f"Bearer {TOKEN}"}, self._loop)
        request._read_bytes = body
        return self._loop.run_until_complete(self._answer(request))

    async def _answer(self, request: web.BaseRequest) -> Answer:
        turns = asyncio.create_task(self._take_turns())
        await asyncio.sleep(0)  # it begins to count
        try:
            async with asyncio.timeout(_LONGEST):
                response: Any = await self.server.handle(request)
        finally:
            turns.cancel()
            await asyncio.wait([turns])
        text = response.body if isinstance(response.body, bytes) else b""
        decoded = orjson.loads(text) if response.content_type == "application/json" and text else None
        return Answer(response.status, decoded, text)

    async def _take_turns(self) -> None:
        """Another client, who wants the event loop every few milliseconds."""
        before = time.process_time()
        try:
            while True:
                await asyncio.sleep(0.003)
                now = time.process_time()
                self.longest_turn = max(self.longest_turn, now - before)
                before = now
        finally:
            self.longest_turn = max(self.longest_turn, time.process_time() - before)

    def create(self, path: str, obj: Any) -> Answer:
        return self("POST", path, orjson.dumps(obj), Content_Type="application/json")


class _Protocol:
    """The connection, as far as a request asks it: there is none."""

    transport = None
    peername = None
    sockname = None
    ssl_context = None


def request_of(method: str, path: str, kind: str, body: bytes, loop: asyncio.AbstractEventLoop) -> web.BaseRequest:
    """A request of the administrator."""
    request = _request(method, path, {"Content-Type": kind, "Authorization": f"Bearer {TOKEN}"}, loop)
    request._read_bytes = body
    return request


def _request(method: str, path: str, headers: dict[str, str], loop: asyncio.AbstractEventLoop) -> web.BaseRequest:
    fields = CIMultiDictProxy(CIMultiDict(headers))
    raw = tuple((key.encode(), value.encode()) for key, value in headers.items())
    url = URL.build(path=path.partition("?")[0], query_string=path.partition("?")[2], encoded=True)
    message = RawRequestMessage(method, path, HttpVersion11, fields, raw, False, None, False, False, url)
    connection: Any = _Protocol()
    nothing: Any = None
    return web.BaseRequest(message, nothing, connection, nothing, nothing, loop, client_max_size=3 * 1024 * 1024)


@contextmanager
def in_process(folder: Path) -> Iterator[InProcess]:
    """With ServiceAccount default/default, and some objects to be read, changed and deleted."""
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{TOKEN},admin,1,"system:masters"\n')
    authority = Authority(folder)
    serving = authority.issue("kube-apiserver", addresses=("127.0.0.1",))
    from cryptography.hazmat.primitives.asymmetric import ec

    write_key(folder / "sa.key", ec.generate_private_key(ec.SECP256R1()))
    settings = parse(
        [
            "--secure-port", "6443", "--advertise-address", "172.18.0.2",
            "--tls-cert-file", str(serving.certificate), "--tls-private-key-file", str(serving.key),
            "--token-auth-file", str(tokens), "--service-account-signing-key-file", str(folder / "sa.key"),
            "--storage-path", ":memory:",
        ]
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    store = Store(":memory:")
    try:
        logging.disable(logging.INFO)
        server = loop.run_until_complete(_built(settings, store))
        yield InProcess(server, loop)
        loop.run_until_complete(server.connector.close())
    finally:
        logging.disable(logging.NOTSET)
        store.close()
        loop.close()


async def _built(settings: Any, store: Store) -> ApiServer:
    server, bootstrap, definitions, book = main.build(settings, store, 6443)
    definitions.start()
    bootstrap.reconcile()
    book.start()
    bootstrap.keep()
    gc.freeze()  # as the server's main does
    return server
