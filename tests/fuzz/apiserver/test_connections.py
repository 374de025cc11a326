"""What a kubelet or a pod answers to a request that is passed on, and which of them a URL names."""

from __future__ import annotations

import asyncio
import random
from urllib.parse import quote

import orjson
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.apiserver.http.upgrade import BUFFER, BackendError, read_answer
from tests.fuzz.apiserver.conftest import Send
from tests.fuzz.apiserver.in_process import InProcess
from tests.fuzz.mutation import mutated

randoms = st.integers(0, 2**32).map(random.Random)

ANSWERS = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n\x80\x03\0\1",
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nnot found",
    b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\n...\r\n0\r\n\r\n",
    b"HTTP/1.0 500 Error\r\nX: " + b"y" * 100 + b"\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
)


async def _read(answer: bytes) -> web.Response | None:
    reader = asyncio.StreamReader(limit=BUFFER)
    reader.feed_data(answer)
    reader.feed_eof()
    return (await read_answer(reader))[1]


@given(rng=randoms)
def test_answers_of_backends(rng: random.Random) -> None:
    answer = rng.choice(ANSWERS) if rng.random() < 0.1 else mutated(rng, ANSWERS)
    try:
        refused = asyncio.run(_read(answer))
    except (BackendError, asyncio.IncompleteReadError):
        return
    assert refused is None or 200 <= refused.status < 1000


names = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["n", "n:80", "https:n:443", "http:n:", "n:²", "n:99999", "n:-1", "n:" + "9" * 5000, "::", "a:b:c:d"]
    ),
)
NODE = {
    "metadata": {"name": "n"},
    "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
    },
}


@given(
    name=names,
    kind=st.sampled_from(["nodes", "namespaces/default/pods", "namespaces/default/services"]),
    what=st.sampled_from(
        ["proxy", "proxy/a/b?c=d", "log?tailLines=x", "exec?command=a", "attach", "portforward?ports=x"]
    ),
    upgrade=st.sampled_from(["", "websocket", "SPDY/3.1", "h2c"]),
)
def test_whom_a_url_names(server: InProcess, send: Send, name: str, kind: str, what: str, upgrade: str) -> None:
    """Nothing listens at port 1 of the loopback, which is where the one node says that its kubelet is."""
    if server("GET", "/api/v1/nodes/n").code == 404:
        server.create("/api/v1/nodes", NODE)
    headers = (
        {"Connection": "Upgrade", "Upgrade": upgrade, "Sec-WebSocket-Protocol": "v5.channel.k8s.io"} if upgrade else {}
    )
    send("GET", f"/api/v1/{kind}/{quote(name, safe=':')}/{what}", **headers)
    assert orjson.loads(server("GET", "/api/v1/nodes/n").text)["kind"] == "Node"
