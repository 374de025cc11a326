"""Watch: a chunked stream of events, in JSON or protobuf, that the writes themselves put on the connections.

Controllers, kubelets and proxies do not poll. They list a resource once and then watch it from the
list's resourceVersion, so a watch must return every change after that version, in order and
without gaps or duplicates
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes). If
the server no longer has the history, it answers 410 Gone, and the client lists again. A watch that
starts without a version begins with the present objects as ADDED events; with sendInitialEvents a
bookmark marks their end (watch list, KEP-3157).

The gap between the replayed and the live events is the critical point. serve() reads the history
and subscribes to the store in one step of the event loop, so no write can come in between. Until
the history is on the connection, new events wait in the Watcher; afterwards they go directly to
the connection.

A cluster has many watchers of the same resource, one for each node and more. An event is therefore
encoded and framed once, and every watcher that is caught up gets the same bytes written to its
connection inside the write, so that the delay is that of the socket. A watcher whose client does
not read is dropped, as upstream's cacher does, because otherwise its backlog would fill the
memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson
from aiohttp import web

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.negotiation import Representation, encode
from kubewire.components.apiserver.registry import tables
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import Selection
from kubewire.components.apiserver.store import Event, RevisionExpired, Store, Stored

log = logging.getLogger(__name__)

#: A watcher with more than this many unsent bytes is dropped.
_MAX_BEHIND = 16 * 1024 * 1024
_BOOKMARK_SECONDS = 60.0
_CHUNK = 256 * 1024
_TURN_SECONDS = 0.01
#: The number of digits of 2^64 - 1.
_MOST_DIGITS = 20
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class WatchOptions:
    """The watch's part of metav1.ListOptions.

    With resource_version "" or "0" the watch starts with the present objects, unless
    initial_events is False: then it starts with the next change.
    """

    resource_version: str = ""
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: float = 1800.0
    include_object: str = "Metadata"


def frame(kind: str, body: bytes) -> bytes:
    """Encodes one event as one HTTP chunk (RFC 9112, 7.1)."""
    return chunk(b'{"type":"%b","object":%b}\n' % (kind.encode(), body))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def too_old(asked: int, oldest: int) -> status.StatusError:
    """The error 410, after which a client lists again."""
    return status.expired(f"too old resource version: {asked} ({oldest})")


class Encoder:
    """Turns a stored object into a frame in the representation that the watcher asked for."""

    def __init__(
        self,
        registry: Registry,
        selection: Selection,
        shape: Representation,
        include: str,
    ) -> None:
        self._registry = registry
        self._served = selection.served
        self._shape = shape
        self._include = include
        self._variant = self._served.api_version if not shape.kind else ""
        if self._variant and shape.protobuf:
            self._variant += ";protobuf"

    def event(self, kind: str, stored: Stored, *, keep: bool = False) -> bytes:
        """The frame of an event; keep caches it for other watchers of the same write."""
        if not self._variant:
            return self._frame(kind, self._shaped(stored))
        cached = stored.frames.get((kind, self._variant))
        if cached is None:
            cached = self._frame(kind, self._registry.body(self._served, stored))
            if keep:
                stored.frames[kind, self._variant] = cached
        return cached

    def left(self, previous: Stored, revision: int) -> bytes:
        """DELETED for an object that the selector no longer selects: its last selected state."""
        obj = previous.copy()
        obj["metadata"]["resourceVersion"] = str(revision)
        return self.event("DELETED", Stored(previous.key, revision, orjson.dumps(obj), obj))

    def bookmark(self, revision: int, *, end_of_initial: bool = False) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if end_of_initial:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        body: dict[str, Any] = {"kind": self._served.kind, "apiVersion": self._served.api_version}
        if self._shape.kind == "Table":
            body = tables.table(self._served, [], metadata, self._shape.version, self._include)
        elif self._shape.kind:
            body = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{self._shape.version}",
            }
        return self._frame("BOOKMARK", orjson.dumps(body | {"metadata": metadata}))

    def _frame(self, kind: str, body: bytes) -> bytes:
        if not self._shape.protobuf:
            return frame(kind, body)
        from kubewire.components.apiserver.http import protobuf_writer

        return chunk(protobuf_writer.watch_event(kind, encode(body, self._shape)))

    def _shaped(self, stored: Stored) -> bytes:
        obj = orjson.loads(self._registry.body(self._served, stored))
        if self._shape.kind == "Table":
            version = {"resourceVersion": str(stored.revision)}
            return orjson.dumps(
                tables.table(self._served, [obj], version, self._shape.version, self._include),
            )
        return orjson.dumps(tables.partial_metadata(obj, self._shape.version))


@dataclass(frozen=True)
class View:
    """What one watcher sees of the writes."""

    selection: Selection
    encoder: Encoder

    def encode(self, event: Event) -> bytes:
        """Returns a frame, or nothing when the watcher does not see the change.

        An object that starts to match the selector is ADDED, one that stops matching is DELETED.
        """
        matches = self.selection.matches
        now = event.type != "DELETED" and matches(event.stored)
        before = event.previous is not None and matches(event.previous)
        if now:
            return self.encoder.event("MODIFIED" if before else "ADDED", event.stored, keep=True)
        if not before or event.previous is None:
            return b""
        if event.type == "DELETED":
            return self.encoder.event("DELETED", event.stored, keep=True)
        return self.encoder.left(event.previous, event.revision)


class Watcher:
    """One watch; it keeps events until it is caught up and then writes them to the connection."""

    def __init__(self, view: View, store: Store) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._view = view
        self._waiting: list[bytes] = []
        self._behind = 0
        self._transport: asyncio.Transport | None = None
        storage = view.selection.served.storage
        self._stop: Callable[[], None] = store.subscribe(storage, self.on_event)

    def on_event(self, event: Event) -> None:
        if self.ended.done():
            return
        try:
            data = self._view.encode(event)
        except Exception:
            # The write is done, and an error in one view must not fail it. The client starts a new
            # watch.
            log.exception("cannot encode an event of %s for a watch", event.stored.key)
            self.end()
            return
        if not data:
            return
        if self._transport is None:
            self._waiting.append(data)
            self._behind += len(data)
            if self._behind > _MAX_BEHIND:
                self._waiting.clear()
                self.end()
        elif self._transport.is_closing() or self._transport.get_write_buffer_size() > _MAX_BEHIND:
            self.end()
        else:
            self._transport.write(data)

    def catch_up(self, transport: asyncio.Transport) -> None:
        if self._waiting:
            transport.write(b"".join(self._waiting))
            self._waiting.clear()
        self._transport = transport

    def end(self) -> None:
        self._stop()
        if not self.ended.done():
            self.ended.set_result(None)


def first_events(
    registry: Registry,
    selection: Selection,
    encoder: Encoder,
    options: WatchOptions,
) -> Iterator[bytes]:
    """The frames before the live events; some are empty. Raises 410.

    The objects are looked up at once, and encoded one by one when the iterator is read.
    """
    store = registry.store
    anywhere = options.resource_version in ("", "0")
    since = 0 if anywhere else parse_revision(options.resource_version)
    if anywhere and options.initial_events is False:
        return iter(())
    if options.initial_events or anywhere:
        items = store.items(selection.served.storage)
        revision = store.revision
        selected = ((item, selection.matches(item)) for item in items)
        frames = (encoder.event("ADDED", item) if fits else b"" for item, fits in selected)
        if options.initial_events and options.bookmarks:
            return chain(frames, (encoder.bookmark(revision, end_of_initial=True),))
        return frames
    if since > store.revision:
        raise too_old(since, store.revision)
    try:
        missed = store.events_since(selection.served.storage, since)
    except RevisionExpired as error:
        raise too_old(since, error.oldest) from error
    view = View(selection, encoder)
    return (view.encode(event) for event in missed)


def parse_revision(text: str) -> int:
    """Parses a resourceVersion; raises 400 (ParseResourceVersion of apiserver/pkg/storage)."""
    error = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}"'
    if not (text.isascii() and text.isdigit()):
        raise status.bad_request(f"{error}: invalid syntax")
    if len(text) > _MOST_DIGITS or int(text) >= 1 << 64:
        raise status.bad_request(f"{error}: value out of range")
    return int(text)


async def serve(
    request: web.BaseRequest,
    registry: Registry,
    selection: Selection,
    shape: Representation,
    options: WatchOptions,
    headers: dict[str, str],
) -> web.StreamResponse:
    """Streams until the timeout, or until the client or the server ends the watch."""
    encoder = Encoder(registry, selection, shape, options.include_object)
    # There must be no await between these two lines: a write between the replayed and the live
    # events would be lost.
    first = first_events(registry, selection, encoder, options)
    watcher = Watcher(View(selection, encoder), registry.store)
    try:
        media_type = f"{shape.content_type};stream=watch" if shape.protobuf else "application/json"
        response = web.StreamResponse(headers=headers | {"Content-Type": media_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        await _write_all(request, transport, first, watcher.ended)
        if watcher.ended.done():
            # The client fell too far behind during the replay; it has to start a new watch.
            transport.abort()
            return response
        watcher.catch_up(transport)
        await _live(watcher, transport, encoder, registry.store, options)
        if not transport.is_closing():
            await response.write_eof()
        return response
    finally:
        watcher.end()


async def _write_all(
    request: web.BaseRequest,
    transport: asyncio.Transport,
    frames: Iterator[bytes],
    ended: asyncio.Future[None],
) -> None:
    """Writes the frames, yielding to other requests every few milliseconds.

    Frames of a Table take a while to encode.
    """
    batch: list[bytes] = []
    size = 0
    turn_ends = time.perf_counter() + _TURN_SECONDS
    for data in frames:
        batch.append(data)
        size += len(data)
        if size > _CHUNK:
            transport.write(b"".join(batch))
            batch = []
            size = 0
            await _drained(request, ended)
            if ended.done():
                return
        if time.perf_counter() > turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.perf_counter() + _TURN_SECONDS
    if batch:
        transport.write(b"".join(batch))


async def _drained(request: web.BaseRequest, ended: asyncio.Future[None]) -> None:
    """Waits until the client has read enough or the watch has ended."""
    draining = asyncio.ensure_future(request.protocol._drain_helper())
    try:
        await asyncio.wait([draining, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        draining.cancel()
    if draining.done() and not draining.cancelled():
        draining.result()


async def _live(
    watcher: Watcher,
    transport: asyncio.Transport,
    encoder: Encoder,
    store: Store,
    options: WatchOptions,
) -> None:
    """Keeps the connection open while writes put events on it, and sends bookmarks."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.timeout
    while not watcher.ended.done() and not transport.is_closing():
        pause = min(_BOOKMARK_SECONDS, deadline - loop.time())
        if pause > 0:
            await asyncio.wait([watcher.ended], timeout=pause)
        if options.bookmarks and not watcher.ended.done() and not transport.is_closing():
            transport.write(encoder.bookmark(store.revision))
        if loop.time() >= deadline:
            return
