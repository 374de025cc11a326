"""A client of the peer's HTTP API for the plugins: one request per connection. It loads in a
millisecond."""

from __future__ import annotations

import socket

#: How long a request may wait for consensus, or for space from another peer, before the runtime
#: must ask again.
SECONDS = 10.0


class PeerError(Exception):
    """The peer refused (status 400 with its text), or could not be reached (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """All methods raise PeerError. where: host:port."""

    def __init__(self, where: str) -> None:
        self._where = where

    def allocate(self, container: str, subnet: str = "") -> str:
        """The address with the prefix length of its subnet."""
        return self._request("POST", f"/ip/{container}" + (f"/{subnet}" if subnet else ""))

    def claim(self, container: str, address: str) -> None:
        self._request("PUT", f"/ip/{container}/{address}")

    def lookup(self, container: str) -> list[str]:
        return self._request("GET", f"/ip/{container}").split()

    def release(self, container: str) -> None:
        """Succeeds if there is nothing to release."""
        try:
            self._request("DELETE", f"/ip/{container}")
        except PeerError as error:
            if "no addresses for" not in str(error):
                raise

    def containers(self) -> list[str]:
        return self._request("GET", "/ip").split()

    def status(self) -> str:
        return self._request("GET", "/status")

    def _request(self, method: str, path: str) -> str:
        host, _, port = self._where.rpartition(":")
        what = f'{method.capitalize()} "http://{self._where}{path}"'
        try:
            with socket.create_connection((host, int(port)), SECONDS) as connection:
                connection.sendall(
                    f"{method} {path} HTTP/1.0\r\nHost: {self._where}\r\n\r\n".encode(),
                )
                answer = b""
                while data := connection.recv(65536):
                    answer += data
        except TimeoutError:
            raise PeerError(0, f"{what}: context deadline exceeded") from None
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", "") or error).lower()
            raise PeerError(0, f"{what}: dial tcp {self._where}: connect: {reason}") from None
        head, _, body = answer.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if not 200 <= status < 300:
            raise PeerError(
                status,
                f"{status}: {body.decode(errors='replace').strip() or 'no answer'}",
            )
        return body.decode()
