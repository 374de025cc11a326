"""Guards for HTTP connections: a failing connection ends alone, with one log line that names its
peer."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from kubewire.components.base.serving import peer_of

log = logging.getLogger(__name__)


class HttpConnection(RequestHandler):
    """aiohttp's handler of one connection. A request that is not HTTP gets the same answer as from
    Go's net/http."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        peer = peer_of(self.transport)
        if isinstance(exc, HttpProcessingError):
            said = " ".join(exc.message.split())[:200]
            log.info("%s: refused: %s", peer, said)
            status = 431 if isinstance(exc, LineTooLong) else 400
        elif isinstance(exc, ConnectionError):
            log.debug("%s: gone before it was answered", peer)
        else:
            log.error("%s: %s %s", peer, request.method, request.path, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        return refusal(request, status)

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        log.error(
            "%s: the connection failed",
            peer_of(self.transport),
            exc_info=kwargs.get("exc_info"),
        )


def can_upgrade(socket: web.WebSocketResponse, request: web.BaseRequest) -> bool:
    """Tells whether the request is a handshake of RFC 6455, 4.2.1. aiohttp raises for a key that is
    not ASCII."""
    try:
        return bool(socket.can_prepare(request))
    except ValueError:
        return False


def refusal(request: web.BaseRequest, status: int) -> web.Response:
    """A plain error response, after which the connection is closed."""
    # The status line takes the version of the request, which may be invalid.
    request._version = HttpVersion11
    request._cache.pop("version", None)
    response = web.Response(status=status)
    response.text = f"{status} {response.reason}"
    response.force_close()
    return response


def refused_version(request: web.BaseRequest) -> web.Response | None:
    """Refuses HTTP/0.9, and HTTP/2.0 in a request line (net/http's http1ServerSupportsRequest)."""
    version = request.version
    if version.major == 1:
        return None
    log.info("%s: refused: HTTP/%d.%d", peer_of(request.transport), *version)
    return refusal(request, 505 if version.major else 400)
