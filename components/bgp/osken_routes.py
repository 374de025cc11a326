"""Repairs of os-ken's tables and route selection where they differ from RFC 4271 and RFC 4456.
osken.install() uses them.

A destination collects what peers announce and withdraw until the processing thread handles it.
os-ken keeps the two in separate lists, handles withdrawals first, and keeps withdrawals that match
nothing. So a route that is withdrawn before it is processed stays for ever, two announcements of
one peer become two routes, and an unmatched withdrawal removes the peer's next route. Here only the
last message of each peer counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from os_ken.lib.packet import bgp


def add_new_path(self: Any, path: Any) -> None:
    """Replaces Destination.add_new_path: a new route replaces the peer's previous one (RFC 4271,
    3.1)."""
    self._validate_path(path)
    self._new_path_list = [known for known in self._new_path_list if known.source != path.source]
    self._new_path_list.append(path)


def add_withdraw(self: Any, withdraw: Any) -> None:
    """Replaces Destination.add_withdraw: a withdrawal also cancels an announcement that is not
    processed yet."""
    self._validate_path(withdraw)
    self._new_path_list = [
        known for known in self._new_path_list if known.source != withdraw.source
    ]
    pending = {known.source for known in self._withdraw_list}
    if withdraw.source not in pending and any(
        known.source == withdraw.source for known in self._known_path_list
    ):
        self._withdraw_list.append(withdraw)


def remove_old_paths_from_source(original: Callable[..., Any]) -> Callable[..., Any]:
    """When a session ends, all routes of the peer are deleted (RFC 4271, 8.2.2), even those not
    processed yet."""

    def remove(self: Any, source: Any) -> Any:
        def is_old(path: Any) -> bool:
            return bool(path.source == source and path.source_version_num < source.version_num)

        self._new_path_list = [pending for pending in self._new_path_list if not is_old(pending)]
        self._withdraw_list = [pending for pending in self._withdraw_list if not is_old(pending)]
        return original(self, source)

    return remove


def is_unusable(peer: Any, message: Any) -> bool:
    """Tells whether an UPDATE's routes have looped, or lead back to this router (RFC 4271, 6.3,
    9.1.2; RFC 4456, 8).

    os-ken compares ORIGINATOR_ID with the peer's router id, so it takes a reflector's own routes
    for loops and misses real loops.
    """
    common = peer._common_conf
    attributes = message.pathattr_map
    path = attributes.get(bgp.BGP_ATTR_TYPE_AS_PATH)
    originator = attributes.get(bgp.BGP_ATTR_TYPE_ORIGINATOR_ID)
    clusters = attributes.get(bgp.BGP_ATTR_TYPE_CLUSTER_LIST)
    return bool(
        (path is not None and path.has_local_as(peer.local_as))
        or (originator is not None and originator.value == common.router_id)
        or (clusters is not None and common.cluster_id in clusters.value)
        or _next_hop(attributes) == peer.state.local_ip,
    )


def _next_hop(attributes: Any) -> Any:
    reached = attributes.get(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
    if reached is not None:
        return reached.next_hop
    next_hop = attributes.get(bgp.BGP_ATTR_TYPE_NEXT_HOP)
    return next_hop.value if next_hop is not None else ""


def withdrawing(message: Any) -> Any:
    """An UPDATE that withdraws the routes of this one: an unusable route still replaces the
    previous one (RFC 4271, 3.1)."""
    reached = message.pathattr_map.get(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
    if reached is None:
        return bgp.BGPUpdate(withdrawn_routes=message.nlri)
    return bgp.BGPUpdate(
        path_attributes=[
            bgp.BGPPathAttributeMpUnreachNLRI(reached.afi, reached.safi, reached.nlri)
        ],
    )


def reflect(update: Any, path: Any, cluster_id: str) -> None:
    """Completes the UPDATE of a route that passes from one peer of the AS to another (RFC 4456, 8):
    the originating router, the reflectors passed so far, and otherwise unchanged attributes (10).

    os-ken takes the peer's address for its router id, drops an existing ORIGINATOR_ID, and sets
    LOCAL_PREF to 100.
    """
    known = path.pathattr_map
    passed = known.get(bgp.BGP_ATTR_TYPE_CLUSTER_LIST)
    kept = {
        kind: known[kind]
        for kind in (bgp.BGP_ATTR_TYPE_ORIGINATOR_ID, bgp.BGP_ATTR_TYPE_LOCAL_PREF)
        if kind in known
    }
    added = {
        bgp.BGP_ATTR_TYPE_ORIGINATOR_ID: bgp.BGPPathAttributeOriginatorId(
            path.source.bgp_identifier,
        ),
        **kept,
        bgp.BGP_ATTR_TYPE_CLUSTER_LIST: bgp.BGPPathAttributeClusterList(
            [cluster_id, *(passed.value if passed else ())],
        ),
    }
    unchanged = [attribute for attribute in update.path_attributes if attribute.type not in added]
    update.path_attributes = [*unchanged, *added.values()]
