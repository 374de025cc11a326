"""Reviews of authentication and authorization; every authenticated request is allowed."""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.authentication import Authenticator
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.users import User
from kubewire.components.kubeapi.resources import KubeObject

AUTHORIZATION = "authorization.k8s.io"
_ALLOWED = {"allowed": True, "reason": "AlwaysAllow"}


def review(
    kind: str,
    api_version: str,
    body: KubeObject,
    user: User,
    authenticator: Authenticator,
) -> KubeObject:
    """Returns the object of the request with its status; raises 400 and 422."""
    metadata = dict(body.get("metadata") or {}) | {"creationTimestamp": None}
    answer: KubeObject = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
    if kind == "SelfSubjectReview":
        return answer | {"status": {"userInfo": user.info()}}
    spec: dict[str, Any] = body.get("spec") or {}
    if kind == "TokenReview":
        if not spec.get("token"):
            raise status.bad_request("token is required for TokenReview in authentication")
        return answer | {"spec": spec, "status": _token_status(spec, authenticator)}
    if kind == "SelfSubjectRulesReview":
        return answer | {"spec": spec, "status": _ALL_RULES}
    if errors := _access_errors(kind, spec):
        raise status.invalid(AUTHORIZATION, kind, "", errors)
    return answer | {"spec": spec, "status": _ALLOWED}


def _access_errors(kind: str, spec: dict[str, Any]) -> list[FieldError]:
    """Validates as pkg/apis/authorization/validation does."""
    errors = []
    if bool(spec.get("resourceAttributes")) == bool(spec.get("nonResourceAttributes")):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        attributes = spec.get("resourceAttributes")
        errors.append(FieldError("Invalid", "spec.resourceAttributes", attributes, text))
    if kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        text = "at least one of user or group must be specified"
        errors.append(FieldError("Invalid", "spec.user", spec.get("user") or "", text))
    return errors


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
