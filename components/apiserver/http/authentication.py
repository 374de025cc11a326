"""Authenticates requests by client certificate, service account token or static token
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.components.apiserver.http.tokens import ServiceAccountTokens, TokenError
from kubewire.components.apiserver.users import (
    ANONYMOUS,
    AUTHENTICATED,
    User,
    service_account_groups,
    service_account_name,
)


def load_token_file(path: str) -> dict[str, User]:
    """Reads the CSV of --token-auth-file: token, user, uid and optionally "group1,group2"."""
    users: dict[str, User] = {}
    with Path(path).open(newline="") as lines:
        for row in csv.reader(lines):
            if not row:
                continue
            if len(row) < 3:
                raise ValueError(
                    f"{path}: a line needs token, user name and uid, got {len(row)} columns",
                )
            names = row[3].split(",") if len(row) > 3 else []
            groups = tuple(name.strip() for name in names if name.strip())
            users[row[0].strip()] = User(row[1].strip(), (*groups, AUTHENTICATED), row[2].strip())
    return users


def certificate_user(certificate: Mapping[str, Any] | None) -> User | None:
    """The user of a certificate as getpeercert() returns it: the CN is the name, each O a group."""
    if not certificate:
        return None
    names = [pair for part in certificate.get("subject", ()) for pair in part]
    common = [value for key, value in names if key == "commonName"]
    if not common:
        return None
    groups = [value for key, value in names if key == "organizationName"]
    return User(common[0], (*groups, AUTHENTICATED))


@dataclass(frozen=True)
class Authenticator:
    """Identifies the user; as in upstream's union, a certificate is tried before a token."""

    static_tokens: Mapping[str, User]
    service_accounts: ServiceAccountTokens
    anonymous: bool = True

    def authenticate(
        self,
        certificate: Mapping[str, Any] | None,
        authorization: str,
    ) -> User | None:
        """Returns None for a 401: the credentials are wrong, or missing and needed."""
        if (user := certificate_user(certificate)) is not None:
            return user
        if not authorization:
            return ANONYMOUS if self.anonymous else None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        return self.token_user(token.strip())

    def token_user(self, token: str, audiences: tuple[str, ...] = ()) -> User | None:
        if (user := self.static_tokens.get(token)) is not None:
            return user
        try:
            claims = self.service_accounts.verify(token, audiences)
        except TokenError:
            return None
        bound = claims["kubernetes.io"]
        namespace = bound["namespace"]
        account = bound["serviceaccount"]
        extra: dict[str, tuple[str, ...]] = {}
        if claims.get("jti"):
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={claims['jti']}",)
        if pod := bound.get("pod"):
            extra["authentication.kubernetes.io/pod-name"] = (pod["name"],)
            extra["authentication.kubernetes.io/pod-uid"] = (pod["uid"],)
        if node := bound.get("node"):
            extra["authentication.kubernetes.io/node-name"] = (node["name"],)
            if node.get("uid"):
                extra["authentication.kubernetes.io/node-uid"] = (node["uid"],)
        groups = (*service_account_groups(namespace), AUTHENTICATED)
        name = service_account_name(namespace, account["name"])
        return User(name, groups, account.get("uid", ""), extra)
