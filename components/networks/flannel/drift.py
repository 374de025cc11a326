"""Notices by rtnetlink notifications, without polling, that another program changed flannel's
entries."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Collection, Iterable

from kubewire.components.kernel import rtnetlink


def concerns(kind: int, payload: bytes, overlays: Collection[int]) -> bool:
    """Tells whether a notification is about an overlay device (by interface index) or about a
    route.

    ifinfomsg and ndmsg have the interface index at offset 4. Neighbours of other interfaces are
    ignored, and so are the IPv6 routes that the kernel itself creates for each interface (rtmsg:
    family at offset 0, protocol at offset 5).
    """
    if kind in (rtnetlink.NEWROUTE, rtnetlink.DELROUTE):
        return (
            len(payload) < 6
            or payload[0] != socket.AF_INET6
            or payload[5] != rtnetlink.RTPROT_KERNEL
        )
    about_a_device = (rtnetlink.NEWLINK, rtnetlink.DELLINK, rtnetlink.NEWNEIGH, rtnetlink.DELNEIGH)
    if kind in about_a_device and len(payload) >= 8:
        index: int = struct.unpack_from("=i", payload, 4)[0]
        return index in overlays
    return False


class Watch(rtnetlink.Watch):
    """Calls back for bursts of notifications about an overlay device or about routes of the given
    families."""

    def __init__(self, changed: Callable[[], None], versions: Collection[int] = (4,)) -> None:
        self._overlays: frozenset[int] = frozenset()
        groups = rtnetlink.LINKS | rtnetlink.NEIGHBOURS
        groups |= rtnetlink.IPV4_ROUTES if 4 in versions else 0
        groups |= rtnetlink.IPV6_ROUTES if 6 in versions else 0
        super().__init__(
            groups,
            changed,
            lambda kind, payload: concerns(kind, payload, self._overlays),
        )

    def follow(self, devices: Iterable[str]) -> None:
        """Sets the overlay devices by name. Call it again after a device was recreated: its index
        changes."""
        indexes = set()
        for device in filter(None, devices):
            with contextlib.suppress(OSError):
                indexes.add(socket.if_nametoindex(device))
        self._overlays = frozenset(indexes)
