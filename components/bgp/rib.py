"""The routes that peers announced, and the selection among them: RFC 4271, 9.1, with multipath.

A BGP router keeps what each peer announced, unchanged, in a separate table (Adj-RIB-In). It must
keep all of it, because the peer announces a route once; if the best route is withdrawn, the second
best is already here. From all routes to a prefix the decision process selects the best one by a
fixed order of criteria (9.1.2.2): local preference, AS path length, origin, MED among routes of one
neighbouring AS, external before internal. Two routers with the same routes decide the same.

Multipath stops before the criteria that only break ties (router id, peer address): routes equal up
to there are all used, and the kernel distributes flows over their next hops.

A session that ends takes its routes with it, unless the peer may be restarting (RFC 4724): then
they stay, marked stale, and each is either announced again or deleted at the peer's End-of-RIB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubewire.components.bgp.config import Prefix

DEFAULT_LOCAL_PREF = 100


@dataclass(frozen=True)
class Route:
    """A path as a peer announced it. origin: 0 IGP, 1 EGP, 2 incomplete."""

    prefix: Prefix
    peer: str
    next_hop: str
    as_path: tuple[int, ...] = ()
    internal: bool = False
    local_pref: int = DEFAULT_LOCAL_PREF
    med: int = 0
    origin: int = 0
    communities: tuple[int, ...] = ()


class AdjRibIn:
    """Routes by peer and prefix, after the import filter. Stale ones are from an earlier session
    (RFC 4724, 4.2)."""

    def __init__(self) -> None:
        self._routes: dict[str, dict[Prefix, Route]] = {}
        self._stale: dict[str, set[Prefix]] = {}

    def learn(self, route: Route) -> None:
        self._routes.setdefault(route.peer, {})[route.prefix] = route
        self._stale.get(route.peer, set()).discard(route.prefix)

    def withdraw(self, peer: str, prefix: Prefix) -> None:
        self._routes.get(peer, {}).pop(prefix, None)
        self._stale.get(peer, set()).discard(prefix)

    def retain(self, peer: str) -> None:
        """Marks the peer's routes as stale. Routes that already were are deleted."""
        self.forget_stale(peer)
        self._stale[peer] = set(self._routes.get(peer, {}))

    def forget_stale(self, peer: str) -> None:
        for prefix in self._stale.pop(peer, ()):
            self._routes[peer].pop(prefix, None)

    def forget(self, peer: str) -> None:
        """Deletes all routes of a peer when its session ends (RFC 4271, 8.2)."""
        self._routes.pop(peer, None)
        self._stale.pop(peer, None)

    def routes(self) -> Iterator[Route]:
        for routes in self._routes.values():
            yield from routes.values()

    def count(self, peer: str) -> int:
        return len(self._routes.get(peer, {}))


def select(routes: Iterable[Route], max_paths: int) -> dict[Prefix, tuple[Route, ...]]:
    """The best route of each prefix first, then those equally good, at most max_paths."""
    by_prefix: dict[Prefix, list[Route]] = {}
    for route in routes:
        by_prefix.setdefault(route.prefix, []).append(route)
    return {
        prefix: _best(by_prefix[prefix])[:max_paths] for prefix in sorted(by_prefix, key=_order)
    }


def _order(prefix: Prefix) -> tuple[int, Prefix]:
    return prefix.version, prefix


def _rank(route: Route) -> tuple[int, int, int]:
    """RFC 4271, 9.1.1 and 9.1.2.2 a and b: degree of preference, AS path length, origin; less is
    better."""
    return -route.local_pref, len(route.as_path), route.origin


def _best(routes: list[Route]) -> tuple[Route, ...]:
    best_rank = min(map(_rank, routes))
    tied = [route for route in routes if _rank(route) == best_rank]
    # 9.1.2.2 c: MED counts only between routes of the same neighbouring AS.
    lowest: dict[int, int] = {}
    for route in tied:
        lowest[_neighbour_as(route)] = min(route.med, lowest.get(_neighbour_as(route), route.med))
    tied = [route for route in tied if route.med == lowest[_neighbour_as(route)]]
    # 9.1.2.2 d: external before internal.
    if not all(route.internal for route in tied):
        tied = [route for route in tied if not route.internal]
    return tuple(sorted(tied, key=lambda route: (route.peer, route.next_hop)))


def _neighbour_as(route: Route) -> int:
    return route.as_path[0] if route.as_path else 0


def next_hops(selected: Mapping[Prefix, tuple[Route, ...]]) -> dict[Prefix, tuple[str, ...]]:
    """The next hops of each prefix; two paths via the same router are one next hop."""
    return {
        prefix: tuple(sorted({route.next_hop for route in routes}))
        for prefix, routes in selected.items()
    }
