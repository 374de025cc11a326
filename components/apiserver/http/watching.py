"""Watch: a chunked stream of JSON events, written by the write that caused them.

An event is encoded and framed once; every watcher that is caught up gets the same bytes put straight onto its
connection inside the write, so the delay is that of the socket. A watcher that does not read is dropped, as
upstream's cacher does (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes)."""

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
from kubewire.components.apiserver.http.negotiation import Representation
from kubewire.components.apiserver.registry import tables
from kubewire.components.apiserver.registry.registry import Registry, Selection
from kubewire.components.apiserver.store import Event, RevisionExpired, Store, Stored

log = logging.getLogger(__name__)

#: Bytes a watcher may be behind before it is dropped.
_MAX_BEHIND = 16 * 1024 * 1024
_BOOKMARK_SECONDS = 60.0
_CHUNK = 256 * 1024
_TURN_SECONDS = 0.01
#: Of 2^64 - 1.
_MOST_DIGITS = 20
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class WatchOptions:
    """The watch's part of metav1.ListOptions.

    resource_version "" and "0" start with the current objects, unless initial_events says False: then with now."""

    resource_version: str = ""
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: float = 1800.0
    include_object: str = "Metadata"


def frame(kind: str, body: bytes) -> bytes:
    """One event as one HTTP chunk (RFC 9112, 7.1)."""
    line = b'{"type":"%b","object":%b}\n' % (kind.encode(), body)
    return b"%x\r\n%b\r\n" % (len(line), line)


def too_old(asked: int, oldest: int) -> status.StatusError:
    return status.expired(f"too old resource version: {asked} ({oldest})")


class Encoder:
    """Turns a stored object into a frame, in the representation the watcher asked for."""

    def __init__(self, registry: Registry, selection: Selection, shape: Representation, include: str) -> None:
        self._registry, self._served = registry, selection.served
        self._shape, self._include = shape, include
        self._variant = self._served.api_version if not shape.kind else ""

    def event(self, kind: str, stored: Stored, *, keep: bool = False) -> bytes:
        """keep: other watchers will want the same bytes in a moment."""
        if not self._variant:
            return frame(kind, self._shaped(stored))
        cached = stored.frames.get((kind, self._variant))
        if cached is None:
            cached = frame(kind, self._registry.body(self._served, stored))
            if keep:
                stored.frames[kind, self._variant] = cached
        return cached

    def left(self, previous: Stored, revision: int) -> bytes:
        """DELETED for an object that the selector does not select any more: its last selected state."""
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
            body = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{self._shape.version}"}
        return frame("BOOKMARK", orjson.dumps(body | {"metadata": metadata}))

    def _shaped(self, stored: Stored) -> bytes:
        obj = orjson.loads(self._registry.body(self._served, stored))
        if self._shape.kind == "Table":
            version = {"resourceVersion": str(stored.revision)}
            return orjson.dumps(tables.table(self._served, [obj], version, self._shape.version, self._include))
        return orjson.dumps(tables.partial_metadata(obj, self._shape.version))


@dataclass(frozen=True)
class View:
    """What one watcher sees of the writes."""

    selection: Selection
    encoder: Encoder

    def encode(self, event: Event) -> bytes:
        """A frame, or nothing. A change of what the selector selects is an ADDED or a DELETED."""
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
    """One watch. Until caught up, events are kept; from then on they go straight onto the connection."""

    def __init__(self, view: View, store: Store) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._view = view
        self._waiting: list[bytes] = []
        self._behind = 0
        self._transport: asyncio.Transport | None = None
        self._stop: Callable[[], None] = store.subscribe(view.selection.served.storage, self.on_event)

    def on_event(self, event: Event) -> None:
        if self.ended.done():
            return
        try:
            data = self._view.encode(event)
        except Exception:
            # The write has happened; one view that cannot be made must not fail it. The client watches anew.
            log.exception("watch of %s", event.stored.key)
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


def first_events(registry: Registry, selection: Selection, encoder: Encoder, options: WatchOptions) -> Iterator[bytes]:
    """What comes before the live events: looked up now, made into frames (some empty) one by one. Raises 410."""
    store = registry.store
    anywhere = options.resource_version in ("", "0")
    since = 0 if anywhere else parse_revision(options.resource_version)
    if anywhere and options.initial_events is False:
        return iter(())
    if options.initial_events or anywhere:
        items, revision = store.items(selection.served.storage), store.revision
        frames = (encoder.event("ADDED", one) if selection.matches(one) else b"" for one in items)
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
    """Raises 400 (apiserver/pkg/storage's ParseResourceVersion)."""
    if not (text.isascii() and text.isdigit()):
        raise status.bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > _MOST_DIGITS or int(text) >= 1 << 64:
        raise status.bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


async def serve(
    request: web.BaseRequest,
    registry: Registry,
    selection: Selection,
    shape: Representation,
    options: WatchOptions,
    headers: dict[str, str],
) -> web.StreamResponse:
    """Streams until the timeout, the client's end, or the server's."""
    encoder = Encoder(registry, selection, shape, options.include_object)
    # No await from here to the Watcher: nothing may be written between what is replayed and what is live.
    first = first_events(registry, selection, encoder, options)
    watcher = Watcher(View(selection, encoder), registry.store)
    try:
        response = web.StreamResponse(headers=headers | {"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        await _write_all(request, transport, first, watcher.ended)
        if watcher.ended.done():
            # Too far behind before it has read what was there: it watches anew.
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
    request: web.BaseRequest, transport: asyncio.Transport, frames: Iterator[bytes], ended: asyncio.Future[None]
) -> None:
    """Others have their turn every few milliseconds: a frame of a Table takes a while to make."""
    batch: list[bytes] = []
    size = 0
    turn_ends = time.perf_counter() + _TURN_SECONDS
    for data in frames:
        batch.append(data)
        size += len(data)
        if size > _CHUNK:
            transport.write(b"".join(batch))
            batch, size = [], 0
            await _drained(request, ended)
            if ended.done():
                return
        if time.perf_counter() > turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.perf_counter() + _TURN_SECONDS
    if batch:
        transport.write(b"".join(batch))


async def _drained(request: web.BaseRequest, ended: asyncio.Future[None]) -> None:
    """The client has read enough, or the watch has ended."""
    draining = asyncio.ensure_future(request.protocol._drain_helper())
    try:
        await asyncio.wait([draining, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        draining.cancel()
    if draining.done() and not draining.cancelled():
        draining.result()


async def _live(
    watcher: Watcher, transport: asyncio.Transport, encoder: Encoder, store: Store, options: WatchOptions
) -> None:
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
