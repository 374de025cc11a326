"""The API server without its sockets: requests go into handle(), so that a process answers thousands a second."""

from __future__ import annotations

import asyncio
import logging
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

from components.apiserver import bodies, main
from components.apiserver.options import parse
from components.apiserver.server import ApiServer
from components.apiserver.store import Store
from tests.components.apiserver.running import Authority, write_key

TOKEN = "fuzz"


@dataclass(frozen=True)
class Answer:
    code: int
    body: Any
    text: bytes


class InProcess:
    """One server with its store in memory."""

    def __init__(self, server: ApiServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """headers: with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = _request(method, path, sent | {"Authorization": f"Bearer {TOKEN}"}, self._loop)
        request._read_bytes = body
        # What breaks must end the request within this, not the test run.
        response: Any = self._loop.run_until_complete(asyncio.wait_for(self.server.handle(request), 60))
        text = response.body if isinstance(response.body, bytes) else b""
        decoded = orjson.loads(text) if response.content_type == "application/json" and text else None
        return Answer(response.status, decoded, text)

    def create(self, path: str, obj: Any) -> Answer:
        return self("POST", path, orjson.dumps(obj), Content_Type="application/json")


class _Protocol:
    """The connection, as far as a request asks it: there is none."""

    transport = None
    peername = None
    sockname = None
    ssl_context = None


def _request(method: str, path: str, headers: dict[str, str], loop: asyncio.AbstractEventLoop) -> web.BaseRequest:
    fields = CIMultiDictProxy(CIMultiDict(headers))
    raw = tuple((key.encode(), value.encode()) for key, value in headers.items())
    url = URL.build(path=path.partition("?")[0], query_string=path.partition("?")[2], encoded=True)
    message = RawRequestMessage(method, path, HttpVersion11, fields, raw, False, None, False, False, url)
    connection: Any = _Protocol()
    nothing: Any = None
    return web.BaseRequest(message, nothing, connection, nothing, nothing, loop, client_max_size=bodies.MAX_BYTES)


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
    return server
