"""Status as text, in the format of birdc's `show protocols` and `show route`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubewire.components.bgp.config import WELL_KNOWN, Prefix
from kubewire.components.bgp.rib import Route

_NAMES = {number: name for name, number in WELL_KNOWN.items()}
_ORIGINS = "i", "e", "?"


@dataclass(frozen=True)
class Session:
    """since: Unix time of the last change of state, in seconds. imported: the number of routes
    after the filter."""

    name: str
    address: str
    remote_as: int
    state: str
    since: float
    imported: int = 0


def protocols(sessions: Sequence[Session]) -> str:
    """One line per peer. State is "up" if the session is established, else "start", as in BIRD."""
    rows = [("Name", "Proto", "Peer", "AS", "State", "Since", "Info", "Imported")]
    for session in sessions:
        since = datetime.datetime.fromtimestamp(session.since).strftime("%H:%M:%S.%f")[:-3]
        state = "up" if session.state == "Established" else "start"
        rows.append(
            (
                session.name,
                "BGP",
                session.address,
                str(session.remote_as),
                state,
                since,
                session.state or "Idle",
                str(session.imported),
            ),
        )
    return _table(rows)


def routes(selected: Mapping[Prefix, Sequence[Route]], names: Mapping[str, str]) -> str:
    """The routes in use; a prefix with several routes has several lines."""

    rows = [("Prefix", "Via", "Peer", "AS path", "Pref", "Communities")]
    for prefix, paths in selected.items():
        for route in paths:
            path = " ".join(map(str, (*route.as_path, _ORIGINS[route.origin])))
            communities = " ".join(map(community, route.communities)) or "-"
            peer = names.get(route.peer, route.peer)
            rows.append(
                (str(prefix), route.next_hop, peer, path, str(route.local_pref), communities),
            )
    return _table(rows)


def community(number: int) -> str:
    return _NAMES.get(number, f"{number >> 16}:{number & 0xFFFF}")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
