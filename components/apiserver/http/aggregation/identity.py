"""Tells a server behind who asks: the headers of an authenticating proxy
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy)."""

from __future__ import annotations

import string
from collections.abc import Mapping

from multidict import CIMultiDict

from kubewire.components.apiserver.http.upgrade import HOP_BY_HOP
from kubewire.components.apiserver.users import MASTERS, User

#: Who asks when the aggregator itself reads the discovery of a server behind.
AGGREGATOR = User("system:kube-aggregator", (MASTERS,))
_NAME = "X-Remote-User"
_UID = "X-Remote-Uid"
_GROUP = "X-Remote-Group"
_EXTRA = "X-Remote-Extra-"
#: What a client says of itself is not passed on, because the server behind would believe it.
_OWN = ("x-remote-", "impersonate-")
_DROPPED = HOP_BY_HOP | {"authorization", "content-length", "host"}
#: The characters of a header's name (RFC 9110, 5.6.2), without the one that escapes.
_PLAIN = frozenset((string.ascii_letters + string.digits + "!#$&'*+-.^_`|~").encode())


def remote_headers(user: User) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    headers.add(_NAME, user.name)
    if user.uid:
        headers.add(_UID, user.uid)
    for group in user.groups:
        headers.add(_GROUP, group)
    for key, values in user.extra.items():
        for value in values:
            headers.add(_EXTRA + _escaped(key), value)
    return headers


def _escaped(key: str) -> str:
    return "".join(chr(one) if one in _PLAIN else f"%{one:02X}" for one in key.encode())


def sent_on(received: Mapping[str, str], user: User, client: str | None) -> CIMultiDict[str]:
    """The headers of a request for the server behind; client is the address of who asks."""
    headers = CIMultiDict(
        (key, value)
        for key, value in received.items()
        if key.lower() not in _DROPPED and not key.lower().startswith(_OWN)
    )
    if client:
        before = ", ".join(headers.popall("X-Forwarded-For", []))
        headers["X-Forwarded-For"] = f"{before}, {client}" if before else client
    headers.extend(remote_headers(user))
    return headers
