"""A synchronous client for tests that look at status codes, warnings and texts."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from tests.components.apiserver.running import RunningApiServer


@dataclass(frozen=True)
class Answer:
    code: int
    body: Any
    warnings: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The events of a watch."""
        return str(self.body.get("text", "")).splitlines()

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class PlainClient:
    """client("POST", path, body); an administrator by client certificate unless another user is named."""

    def __init__(self, server: RunningApiServer, user: str = "admin", *groups: str) -> None:
        issued = server.authority.issue(user, groups=groups or ("system:masters",))
        self._context = ssl.create_default_context(cafile=str(server.authority.certificate))
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._port = server.port

    def __call__(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Answer:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=60, context=self._context)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": kind, "User-Agent": "tests/1"})
            response = connection.getresponse()
            warnings = tuple(item.split(" ", 2)[2].strip('"') for item in response.headers.get_all("Warning") or ())
            raw = response.read()
            one = raw.startswith(b"{") and "watch=true" not in path
            return Answer(response.status, json.loads(raw) if one else {"text": raw.decode()}, warnings)
        finally:
            connection.close()
