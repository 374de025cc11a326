"""The user of a request, as authentication.k8s.io's UserInfo describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
#: The members of this group may do everything, whatever roles exist.
MASTERS = "system:masters"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class User:
    """A user; extra holds what the authenticator knows besides, such as the pod of a token."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))
#: The API server itself, for what it writes on its own account.
SERVER = User("system:apiserver", (MASTERS, AUTHENTICATED))


def service_account_name(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount."""
    return f"{_SERVICE_ACCOUNT}{namespace}:{name}"


def service_account_groups(namespace: str) -> tuple[str, str]:
    """The groups of every ServiceAccount in a namespace, without system:authenticated."""
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}"


def split_service_account(username: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount with this user name; None for other users."""
    if not username.startswith(_SERVICE_ACCOUNT):
        return None
    namespace, colon, name = username.removeprefix(_SERVICE_ACCOUNT).partition(":")
    if not (namespace and colon and name) or ":" in name:
        return None
    return namespace, name
