"""Passes the answer of a backend on to the client as it arrives."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from kubewire.components.apiserver.http.upgrade import HOP_BY_HOP


async def relay(
    request: web.BaseRequest,
    answer: aiohttp.ClientResponse,
    received: Mapping[str, str],
) -> web.StreamResponse:
    headers = CIMultiDict(
        (key, value) for key, value in received.items() if key.lower() not in HOP_BY_HOP
    )
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    if "Content-Length" not in headers:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError as error:
        # The head of the answer is sent, so the client would read a second answer as part of its
        # body. Only closing the connection tells it of the error (httputil's ErrAbortHandler).
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"the backend broke off: {error}") from error
    await response.write_eof()
    return response
