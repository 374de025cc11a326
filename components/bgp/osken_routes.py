"""os-ken's tables and its choice among routes, where they differ from RFC 4271 and RFC 4456; osken.install() has it.

A destination gathers what its peers announce and withdraw until the thread that processes routes comes to it. os-ken
keeps the two in separate lists, handles withdrawals first, and keeps those that match nothing: a route that is
withdrawn before it is processed stays for ever, two announcements of one peer are two routes, and an unmatched
withdrawal takes the peer's next route. Here only the last word of a peer is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def add_new_path(self: Any, path: Any) -> None:
    """In place of Destination.add_new_path: a new route takes the place of the peer's one before (RFC 4271, 3.1)."""
    self._validate_path(path)
    self._new_path_list = [one for one in self._new_path_list if one.source != path.source]
    self._new_path_list.append(path)


def add_withdraw(self: Any, withdraw: Any) -> None:
    """In place of Destination.add_withdraw."""
    self._validate_path(withdraw)
    self._new_path_list = [one for one in self._new_path_list if one.source != withdraw.source]
    pending = {one.source for one in self._withdraw_list}
    if withdraw.source not in pending and any(one.source == withdraw.source for one in self._known_path_list):
        self._withdraw_list.append(withdraw)


def remove_old_paths_from_source(original: Callable[..., Any]) -> Callable[..., Any]:
    """When a session ends all routes of the peer go (RFC 4271, 8.2.2), also those that are not processed yet."""

    def remove(self: Any, source: Any) -> Any:
        def is_old(path: Any) -> bool:
            return bool(path.source == source and path.source_version_num < source.version_num)

        self._new_path_list = [one for one in self._new_path_list if not is_old(one)]
        self._withdraw_list = [one for one in self._withdraw_list if not is_old(one)]
        return original(self, source)

    return remove
