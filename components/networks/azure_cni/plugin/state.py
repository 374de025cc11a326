"""azure-vnet-ipam's store: the node's addresses and the container that has each. One file, under a
lock.

(azure-container-networking: ipam/pool.go, store/json.go)
"""

# ruff: noqa: PTH103, PTH105, PTH120
from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

STORE = "/var/run/azure-vnet-ipam.json"


class NoAddress(Exception):
    """No address is free. The text is upstream's."""


class Store:
    """A context manager: it holds the lock inside, and writes the file at its end. Raises
    OSError."""

    def __init__(self, path: str = STORE) -> None:
        self._path = path
        self._lock = -1
        self.addresses: dict[str, str] = {}

    def __enter__(self) -> Store:
        import fcntl

        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            with open(self._path, encoding="utf-8") as file:
                self.addresses = {
                    str(key): str(user)
                    for key, user in json.load(file)["IPAM"]["Addresses"].items()
                }
        except (
            FileNotFoundError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            self.addresses = {}
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                new = f"{self._path}.new"
                with open(new, "w", encoding="utf-8") as file:
                    json.dump({"IPAM": {"Addresses": self.addresses}}, file, indent=2)
                os.replace(new, self._path)
        finally:
            os.close(self._lock)

    def refresh(self, pool: Iterable[str]) -> None:
        """Sets the addresses that the node has now. Addresses in use stay known even if they are
        not among them."""
        wanted = list(pool)
        used = {address: user for address, user in self.addresses.items() if user}
        self.addresses = {
            address: used.get(address, "") for address in dict.fromkeys([*wanted, *used])
        }

    def request(self, container: str) -> str:
        """Assigns an address, or returns the container's present one. Raises NoAddress."""
        for address, user in self.addresses.items():
            if user == container:
                return address
        for address, user in self.addresses.items():
            if not user:
                self.addresses[address] = container
                return address
        raise NoAddress("No available addresses")

    def release(self, container: str) -> str:
        """Releases the container's address, to be re-used last, and returns it; "" if it has
        none."""
        for address, user in self.addresses.items():
            if user == container:
                del self.addresses[address]
                self.addresses[address] = ""
                return address
        return ""

    def keep_only(self, containers: Iterable[str]) -> list[str]:
        """Releases the addresses of all other containers and returns them."""
        valid = set(containers)
        gone = [address for address, user in self.addresses.items() if user and user not in valid]
        for address in gone:
            self.addresses[address] = ""
        return gone
