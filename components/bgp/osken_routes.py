"""os-ken's tables and its choice among routes, where they differ from RFC 4271 and RFC 4456; osken.install() has it.

A destination gathers what its peers announce and withdraw until the thread that processes routes comes to it. os-ken
keeps the two in separate lists, handles withdrawals first, and keeps those that match nothing: a route that is
withdrawn before it is processed stays for ever, two announcements of one peer are two routes, and an unmatched
withdrawal takes the peer's next route. Here only the last word of a peer is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from os_ken.lib.packet import bgp


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


def is_unusable(peer: Any, message: Any) -> bool:
    """Whether the routes of an UPDATE have come round, or lead back to us (RFC 4271, 6.3, 9.1.2; RFC 4456, 8). os-ken
    compares ORIGINATOR_ID with the router id of the peer, which makes a reflector's own routes loops and lets real ones
    pass."""
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
    """An UPDATE that withdraws what this one announces: a route that cannot be used still takes the place of the one
    before (RFC 4271, 3.1)."""
    reached = message.pathattr_map.get(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)
    if reached is None:
        return bgp.BGPUpdate(withdrawn_routes=message.nlri)
    return bgp.BGPUpdate(
        path_attributes=[bgp.BGPPathAttributeMpUnreachNLRI(reached.afi, reached.safi, reached.nlri)],
    )


def reflect(update: Any, path: Any, cluster_id: str) -> None:
    """The UPDATE of a route that passes from one peer of our AS to another (RFC 4456, 8): the router that it comes
    from, the reflectors that it has passed, and otherwise the attributes that it had (10). os-ken takes the address of
    the peer for its router id, forgets an ORIGINATOR_ID that is there, and sets LOCAL_PREF to 100."""
    known = path.pathattr_map
    passed = known.get(bgp.BGP_ATTR_TYPE_CLUSTER_LIST)
    kept = {
        kind: known[kind] for kind in (bgp.BGP_ATTR_TYPE_ORIGINATOR_ID, bgp.BGP_ATTR_TYPE_LOCAL_PREF) if kind in known
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
    others = [one for one in update.path_attributes if one.type not in added]
    update.path_attributes = [*others, *added.values()]
