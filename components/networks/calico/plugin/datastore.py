"""A client of the Kubernetes API for IPAM, on the standard library: one connection, JSON, a bearer
token.

It loads in a few milliseconds, which matters because it runs for every pod. It reads a kubeconfig
in JSON, as install.py writes it.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GROUP = "/apis/crd.projectcalico.org/v1"
_SECONDS = 10.0


class ApiError(Exception):
    """The API server refused the request, or could not be reached (status 0). status is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Datastore:
    """Methods raise ApiError: status 404 if the object does not exist, 409 if it has changed or
    exists already."""

    def __init__(self, kubeconfig: str) -> None:
        try:
            with open(kubeconfig, encoding="utf-8") as file:
                self._read(json.load(file))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ApiError(0, f'error loading config file "{kubeconfig}": {error!r}') from None
        self._connection: ssl.SSLSocket | None = None

    def _read(self, config: Any) -> None:
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        address = cluster["server"].partition("://")[2].rstrip("/")
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._authority = address
        self._context = ssl.create_default_context(
            cadata=_pem(cluster["certificate-authority-data"]),
        )
        self._token = user["token"]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.request("GET", f"{GROUP}/{kind}/{name}")

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """None if the object does not exist."""
        try:
            return self.get(kind, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.request("GET", f"{GROUP}/{kind}")["items"]
        return items

    def create(self, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
        return self.request("POST", f"{GROUP}/{kind}", obj)

    def update(self, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
        return self.request("PUT", f"{GROUP}/{kind}/{obj['metadata']['name']}", obj)

    def delete(self, kind: str, obj: dict[str, Any]) -> None:
        """Deletes the object only if it is still the one that was read."""
        metadata = obj["metadata"]
        options = {
            "preconditions": {
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            }
        }
        self.request("DELETE", f"{GROUP}/{kind}/{metadata['name']}", options)

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """Sends a request. An answer that is not a JSON object raises ApiError, too."""
        content = json.dumps(body).encode() if body is not None else b""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._authority}",
            f"Authorization: Bearer {self._token}",
            "Accept: application/json",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(content)}",
        ]
        status, answer = self._exchange("\r\n".join([*lines, "", ""]).encode() + content)
        try:
            decoded: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise ApiError(status, answer.decode(errors="replace")[:200]) from None
        if status >= 300:
            raise ApiError(status, decoded.get("message", ""))
        return decoded

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        try:
            if self._connection is None:
                plain = socket.create_connection((self._host, self._port), _SECONDS)
                self._connection = self._context.wrap_socket(plain, server_hostname=self._host)
            self._connection.sendall(request)
            return self._answer(self._connection)
        except (OSError, ValueError) as error:
            self._connection = None
            raise ApiError(0, f"error getting ClusterInformation: {error}") from None

    def _answer(self, connection: ssl.SSLSocket) -> tuple[int, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += _more(connection)
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (field.partition(":") for field in fields)
        }
        if headers.get("transfer-encoding") == "chunked":
            body = _chunked(connection, rest)
        else:
            length = int(headers.get("content-length", "0"))
            while len(rest) < length:
                rest += _more(connection)
            body = rest
        return int(first.split()[1]), body


def _more(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ValueError("the server closed the connection")
    return data


def _chunked(connection: ssl.SSLSocket, data: bytes) -> bytes:
    body = b""
    while True:
        while b"\r\n" not in data:
            data += _more(connection)
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        while len(data) < length + 2:
            data += _more(connection)
        if not length:
            return body
        body = body + data[:length]
        data = data[length + 2 :]


def _pem(text: str) -> str:
    return base64.b64decode(text).decode()
