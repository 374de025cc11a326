"""Decides whether the user of a request may make it, and as whom a user may act
(apiserver/pkg/endpoints/filters: authorization, impersonation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from multidict import CIMultiDictProxy

from kubewire.components.apiserver import status
from kubewire.components.apiserver.access.attributes import Attributes, forbidden
from kubewire.components.apiserver.access.modes import Union
from kubewire.components.apiserver.http.requestinfo import RequestInfo
from kubewire.components.apiserver.users import (
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    User,
    service_account_groups,
    split_service_account,
)
from kubewire.components.kubeapi.selectors import FieldSelector, SelectorError

_USER = "Impersonate-User"
_GROUP = "Impersonate-Group"
_UID = "Impersonate-Uid"
_EXTRA = "impersonate-extra-"
_AUTHENTICATION = "authentication.k8s.io"
_SELECTING = frozenset({"list", "watch", "deletecollection"})
#: Since 1.35 a WebSocket to these, which is a GET, needs the verb create as SPDY's POST does.
_STREAMS = frozenset({"exec", "attach", "portforward"})


def attributes_of(info: RequestInfo, query: Mapping[str, str], user: User) -> Attributes:
    """The request as authorizers see it."""
    if not info.is_resource:
        return Attributes(user, info.verb, path=unquote(info.path))
    name = info.name
    equals: tuple[tuple[str, str], ...] = ()
    if info.verb in _SELECTING and (selector := query.get("fieldSelector")):
        equals = _equals(selector)
        if not name and info.verb != "deletecollection":
            name = dict(equals).get("metadata.name", "")
    # A Namespace is in itself, so that a Role in it can give access to it.
    is_namespace = info.plural == "namespaces" and not info.group
    namespace = info.name if is_namespace else info.namespace
    return Attributes(
        user,
        info.verb,
        info.group,
        info.version,
        info.plural,
        info.subresource,
        namespace,
        name,
        equals=equals,
    )


def _equals(selector: str) -> tuple[tuple[str, str], ...]:
    try:
        terms = FieldSelector.parse(selector).terms
    except SelectorError:  # The endpoint answers 400; until then it selects nothing.
        return ()
    return tuple((field, value) for field, equal, value in terms if equal)


def authorize(authorizer: Union, info: RequestInfo, query: Mapping[str, str], user: User) -> None:
    """Raises 403."""
    asked = attributes_of(info, query, user)
    _check(authorizer, asked)
    if info.subresource in _STREAMS and info.verb == "get":
        _check(
            authorizer,
            Attributes(
                user,
                "create",
                info.group,
                info.version,
                info.plural,
                info.subresource,
                info.namespace,
                info.name,
            ),
        )


def _check(authorizer: Union, asked: Attributes) -> None:
    decision = authorizer.decide(asked)
    if not decision.allowed:
        raise forbidden(asked, decision.reason)


@dataclass(frozen=True)
class _Wanted:
    """The user that the headers name, before groups are added to it."""

    name: str
    groups: tuple[str, ...]
    uid: str
    extra: Mapping[str, tuple[str, ...]]


def acting_as(authorizer: Union, headers: CIMultiDictProxy[str], user: User) -> User:
    """The user as whom a request acts: its own, or the one that Impersonate headers name.

    Raises 400 for headers without a user, and 403 if the user may not act as each of them.
    """
    wanted = _wanted(headers)
    if wanted is None:
        return user
    for asked in _permissions(wanted, user):
        _check(authorizer, asked)
    return User(wanted.name, _groups(wanted), wanted.uid, wanted.extra)


def _wanted(headers: CIMultiDictProxy[str]) -> _Wanted | None:
    names = [name for name in headers if name[:12].lower() == "impersonate-"]
    if not names:
        return None
    extra: dict[str, tuple[str, ...]] = {}
    for header in dict.fromkeys(name.lower() for name in names):
        if header.startswith(_EXTRA):
            extra[unquote(header.removeprefix(_EXTRA))] = tuple(headers.getall(header))
    wanted = _Wanted(
        headers.get(_USER, ""),
        tuple(headers.getall(_GROUP, ())),
        headers.get(_UID, ""),
        extra,
    )
    if not wanted.name and (wanted.groups or wanted.uid or wanted.extra):
        raise status.bad_request("requested impersonation without impersonating a user name")
    return wanted if wanted.name else None


def _permissions(wanted: _Wanted, user: User) -> Iterator[Attributes]:
    account = split_service_account(wanted.name)
    if account is not None:
        namespace, name = account
        yield Attributes(
            user,
            "impersonate",
            version="v1",
            resource="serviceaccounts",
            namespace=namespace,
            name=name,
        )
    else:
        yield Attributes(user, "impersonate", resource="users", name=wanted.name)
    for group in wanted.groups:
        yield Attributes(user, "impersonate", resource="groups", name=group)
    for key, values in wanted.extra.items():
        for value in values:
            yield Attributes(
                user, "impersonate", _AUTHENTICATION, "v1", "userextras", key, name=value
            )
    if wanted.uid:
        yield Attributes(user, "impersonate", _AUTHENTICATION, "v1", "uids", name=wanted.uid)


def _groups(wanted: _Wanted) -> tuple[str, ...]:
    groups = wanted.groups
    account = split_service_account(wanted.name)
    if account is not None and not groups:
        groups = service_account_groups(account[0])
    if wanted.name == ANONYMOUS.name:
        return groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED)
    if AUTHENTICATED in groups or UNAUTHENTICATED in groups:
        return groups
    return (*groups, AUTHENTICATED)
