"""Options of lists and watches: what is refused is a Status below 500, what is served is what the options say."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.apiserver.conftest import Send, Tracebacks
from tests.fuzz.apiserver.in_process import InProcess, request_of

CONFIGMAPS = "/api/v1/namespaces/listed/configmaps"
KINDS = (CONFIGMAPS, "/api/v1/configmaps", "/api/v1/namespaces", "/apis/events.k8s.io/v1/events", "/api/v1/nodes")
NUMBER = 7

revisions = st.one_of(
    st.sampled_from(["", "0", "1", "x", "-1", "²", "1e3", " 1", "9" * 19, "9" * 20, "9" * 5000, str(2**64)]),
    st.integers(0, 60).map(str),
)
numbers = st.one_of(
    st.integers(-(2**65), 2**65).map(str), st.integers(-2, 9).map(str), st.sampled_from(["", "x", "1.5"])
)
flags = st.sampled_from(["", "true", "false", "1", "0", "TRUE", "x"])
options = st.fixed_dictionaries(
    {},
    optional={
        "resourceVersion": revisions,
        "resourceVersionMatch": st.sampled_from(["Exact", "NotOlderThan", "NotOlderThan", "", "exact", "x"]),
        "timeoutSeconds": numbers,
        "allowWatchBookmarks": flags,
        "sendInitialEvents": flags,
        "limit": numbers,
        "continue": st.sampled_from(["", "x", "e30", "bnVsbA", "W10", "eyJydiI6MSwic3RhcnQiOjF9", "eyJydiI6LTEsInN0YXJ0IjoiIn0"]),
        "fieldSelector": st.sampled_from(["", "metadata.name=c1", "metadata.name!=c1"]),
        "labelSelector": st.sampled_from(["", "odd=1", "!odd"]),
    },
)  # fmt: skip
accepts = st.sampled_from(
    ["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io",
     "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/yaml"]
)  # fmt: skip


@pytest.fixture(scope="module")
def listed(server: InProcess) -> InProcess:
    """With objects, some of them changed and one deleted, so that there is history."""
    server.create("/api/v1/namespaces", {"metadata": {"name": "listed"}})
    for number in range(NUMBER + 1):
        labels = {"odd": str(number % 2)} if number % 2 else {}
        server.create(CONFIGMAPS, {"metadata": {"name": f"c{number}", "labels": labels}})
    server("PATCH", f"{CONFIGMAPS}/c2", b'{"data":{"a":"b"}}', Content_Type="application/merge-patch+json")
    server("DELETE", f"{CONFIGMAPS}/c{NUMBER}")
    return server


class _Sink(asyncio.Transport):
    """A client that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def writelines(self, parts: Any) -> None:
        self.sent += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


async def _watched(api: InProcess, path: str, accept: str) -> tuple[web.StreamResponse | None, bytes]:
    """The answer, None of a watch that goes on, and what was sent until nothing came for some turns of the loop."""
    loop, sink = asyncio.get_running_loop(), _Sink()
    protocol = BaseProtocol(loop)
    protocol.connection_made(sink)
    request: Any = request_of("GET", path, "", b"", loop)
    request._headers = request.headers.copy()
    request._headers["Accept"] = accept
    request._protocol = protocol
    request._payload_writer = StreamWriter(protocol, loop)
    answering = asyncio.ensure_future(api.server.handle(request))
    quiet, before = 0, 0
    while not answering.done() and quiet < 5:
        await asyncio.sleep(0)
        quiet = quiet + 1 if len(sink.sent) == before else 0
        before = len(sink.sent)
    if answering.done():
        return answering.result(), bytes(sink.sent)
    answering.cancel()
    await asyncio.wait([answering])
    assert answering.cancelled()
    return None, bytes(sink.sent)


def _events(sent: bytes) -> list[Any]:
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), sent[:300]
    events = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length:
            events.append(orjson.loads(rest[:length]))
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return events


def _flag(query: dict[str, str], name: str) -> bool:
    return name in query and query[name].lower() not in ("false", "0")


@given(path=st.sampled_from(KINDS), query=options, accept=accepts)
def test_watches(listed: InProcess, tracebacks: Tracebacks, path: str, query: dict[str, str], accept: str) -> None:
    table = listed.server.endpoints.registry.store._tables.get("configmaps")
    assert table is not None
    listeners = len(table.listeners)
    asked = f"{path}?" + urlencode(query | {"watch": "1"})
    response, sent = listed._loop.run_until_complete(_watched(listed, asked, accept))
    assert not tracebacks.found, tracebacks.found[0]
    assert len(table.listeners) == listeners
    if isinstance(response, web.Response):
        assert isinstance(response.body, bytes)
        said = orjson.loads(response.body)
        assert (said["kind"], said["code"]) == ("Status", response.status)
        assert 400 <= response.status < 500
        return
    events = _events(sent)
    assert {one["type"] for one in events} <= {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}
    marked = [one for one in events if "initial-events-end" in orjson.dumps(one).decode()]
    assert len(marked) == (_flag(query, "sendInitialEvents") and _flag(query, "allowWatchBookmarks"))


@given(path=st.sampled_from(KINDS), query=options, accept=accepts.filter(lambda one: "yaml" not in one))
def test_lists(listed: InProcess, send: Send, path: str, query: dict[str, str], accept: str) -> None:
    answer = send("GET", f"{path}?" + urlencode(query), Accept=accept)
    if answer.code != 200:
        assert answer.body["kind"] == "Status"
        assert answer.body["code"] == answer.code
        return
    items = answer.body["rows" if "Table" in accept else "items"] or []
    limit = int(query.get("limit") or 0)
    assert limit <= 0 or len(items) <= limit
    assert int(answer.body["metadata"]["resourceVersion"]) > 0


@given(limit=st.integers(1, 9), selector=st.sampled_from(["", "odd=1", "!odd"]), change=st.booleans())
def test_pages_are_the_list(listed: InProcess, send: Send, limit: int, selector: str, change: bool) -> None:
    """Also when something is written between them."""

    def page(**query: str) -> tuple[list[str], dict[str, Any]]:
        body = send("GET", f"{CONFIGMAPS}?" + urlencode(query | {"labelSelector": selector})).body
        return [one["metadata"]["name"] for one in body["items"]], body["metadata"]

    whole, _ = page()
    names, metadata = page(limit=str(limit))
    first = metadata["resourceVersion"]
    while token := metadata.get("continue"):
        if change:
            listed.create(CONFIGMAPS, {"metadata": {"name": "c9"}})
            listed("DELETE", f"{CONFIGMAPS}/c9")
        more, metadata = page(limit=str(limit), **{"continue": token})
        assert metadata["resourceVersion"] == first
        names += more
    assert names == whole
