"""Watches of objects that a webhook converts.

An ordinary watch is written inside the write that it tells of. Here each event has to wait for the
webhook, so they are kept in a queue and converted one by one in a thread that may wait.
"""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.negotiation import Representation
from kubewire.components.apiserver.http.watching import (
    Encoder,
    View,
    WatchOptions,
    first_events,
    frame,
)
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import Selection
from kubewire.components.apiserver.store import Event

_BOOKMARK_SECONDS = 60.0
#: The most events that may wait for their conversion. Then the client has to watch anew.
_MOST_WAITING = 10_000


async def serve(
    request: web.BaseRequest,
    registry: Registry,
    selection: Selection,
    shape: Representation,
    options: WatchOptions,
) -> web.StreamResponse:
    """Streams until the timeout, or until the client or the server ends the watch."""
    encoder = Encoder(registry, selection, shape, options.include_object)
    view = View(selection, encoder)
    events: asyncio.Queue[Event] = asyncio.Queue()
    # As in watching.serve there must be no await between these two lines.
    first = first_events(registry, selection, encoder, options)
    stop = registry.store.subscribe(selection.served.storage, events.put_nowait)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        owner = registry.store.owner
        transport.write(await owner.run_waiting(lambda: b"".join(first)))
        await _live(registry, view, events, transport, options)
    except status.StatusError as error:
        if request.transport is not None:
            request.transport.write(frame("ERROR", orjson.dumps(error.body)))
    finally:
        stop()
    if request.transport is not None and not request.transport.is_closing():
        await response.write_eof()
    return response


async def _live(
    registry: Registry,
    view: View,
    events: asyncio.Queue[Event],
    transport: asyncio.Transport,
    options: WatchOptions,
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.timeout
    seen = registry.store.revision
    while not transport.is_closing() and events.qsize() <= _MOST_WAITING:
        pause = min(_BOOKMARK_SECONDS, deadline - loop.time())
        if pause <= 0:
            return
        try:
            async with asyncio.timeout(pause):
                event = await events.get()
        except TimeoutError:
            if options.bookmarks:
                transport.write(view.encoder.bookmark(seen))
            continue
        data = await registry.store.owner.run_waiting(lambda event=event: view.encode(event))  # type: ignore[misc]
        seen = event.revision
        if data:
            transport.write(data)
