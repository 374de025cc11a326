"""Reviews: who am I, may I. Every authenticated request is allowed, so the answers say so."""

from __future__ import annotations

from typing import Any

from components.apiserver.authentication import Authenticator, User
from components.machinery.resources import KubeObject

_ALLOWED = {"allowed": True, "reason": "AlwaysAllow"}


def review(kind: str, api_version: str, body: KubeObject, user: User, authenticator: Authenticator) -> KubeObject:
    """The object of the request with its status."""
    metadata = dict(body.get("metadata") or {}) | {"creationTimestamp": None}
    answer: KubeObject = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
    if kind == "SelfSubjectReview":
        return answer | {"status": {"userInfo": user.info()}}
    spec: dict[str, Any] = body.get("spec") or {}
    if kind == "TokenReview":
        return answer | {"spec": spec, "status": _token_status(spec, authenticator)}
    if kind == "SelfSubjectRulesReview":
        return answer | {"spec": spec, "status": _ALL_RULES}
    return answer | {"spec": spec, "status": _ALLOWED}


_ALL_RULES = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}


def _token_status(spec: dict[str, Any], authenticator: Authenticator) -> dict[str, Any]:
    asked = tuple(spec.get("audiences") or ())
    user = authenticator.token_user(spec.get("token", ""), asked)
    if user is None:
        return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
    audiences = list(asked or authenticator.service_accounts.audiences)
    return {"authenticated": True, "user": user.info(), "audiences": audiences}
