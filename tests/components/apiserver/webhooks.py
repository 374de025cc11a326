"""A webhook for tests: an HTTPS server on 127.0.0.1 that answers as the test says and keeps what it was asked."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.components.apiserver.running import RunningApiServer

#: Makes the `response` of a review from its `request`, which may be missing parts of it.
Answer = Callable[[dict[str, Any]], dict[str, Any]]


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    """A response with a JSON patch."""
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


class WebhookServer:
    """`with WebhookServer(server) as hooks:`; hooks.answers[path] is what a path answers, hooks.asked what it got."""

    def __init__(self, api: RunningApiServer, *, name: str = "webhook") -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.bundle = base64.b64encode(api.authority.certificate.read_bytes()).decode()
        issued = api.authority.issue(name, addresses=("127.0.0.1",))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def client(self, path: str) -> dict[str, Any]:
        """A clientConfig."""
        return {"url": self.url + path, "caBundle": self.bundle}

    def requests(self, path: str) -> list[dict[str, Any]]:
        return [review["request"] for asked, review in self.asked if asked == path]

    def answer(self, review: dict[str, Any]) -> dict[str, Any]:
        """The response to a review."""
        return self.answers[review["path"]](review["request"])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                path = self.path.partition("?")[0]
                review["path"] = path
                outer.asked.append((path, review))
                response = {"uid": review["request"]["uid"]} | outer.answer(review)
                code = response.pop("http", 200)
                body = json.dumps({k: review[k] for k in ("kind", "apiVersion")} | {"response": response}).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # In two pieces, as large answers arrive.
                self.wfile.write(body[:20])
                self.wfile.flush()
                self.wfile.write(body[20:])

            def log_message(self, format: str, *args: object) -> None:
                return None

        return Handler

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
