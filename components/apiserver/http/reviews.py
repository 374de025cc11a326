"""Reviews: who a user is, and what a user may do
(https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.access.attributes import Attributes, Rules
from kubewire.components.apiserver.access.modes import Union
from kubewire.components.apiserver.http.authentication import Authenticator
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.owner import OwnerThread
from kubewire.components.apiserver.users import User
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import FieldSelector, SelectorError

AUTHORIZATION = "authorization.k8s.io"


@dataclass(frozen=True)
class Reviewer:
    """Answers the reviews that a user asks for. It may run in a worker thread; the authorizers
    belong to the owner thread."""

    user: User
    authenticator: Authenticator
    access: Union
    owner: OwnerThread

    def review(self, kind: str, api_version: str, body: KubeObject, namespace: str) -> KubeObject:
        """Returns the object of the request with its status; raises 400 and 422."""
        metadata = dict(body.get("metadata") or {}) | {"creationTimestamp": None}
        answer: KubeObject = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        if kind == "SelfSubjectReview":
            return answer | {"status": {"userInfo": self.user.info()}}
        spec: dict[str, Any] = body.get("spec") or {}
        if kind == "TokenReview":
            if not spec.get("token"):
                raise status.bad_request("token is required for TokenReview in authentication")
            return answer | {"spec": spec, "status": self._token_status(spec)}
        if kind == "SelfSubjectRulesReview":
            if not spec.get("namespace"):
                raise status.bad_request("no namespace on request")
            rules = self.owner.call(self.access.rules_for, self.user, spec["namespace"])
            return answer | {"spec": spec, "status": _rules_status(rules)}
        if errors := _access_errors(kind, spec):
            raise status.invalid(AUTHORIZATION, kind, "", errors)
        if kind == "LocalSubjectAccessReview":
            _check_local(spec, namespace)
        is_self = kind == "SelfSubjectAccessReview"
        user = self.user if is_self else _subject(spec)
        decision = self.owner.call(self.access.explain, _attributes(spec, user))
        result: dict[str, Any] = {"allowed": decision.allowed}
        if decision.reason:
            result["reason"] = decision.reason
        return answer | {"spec": spec, "status": result}

    def _token_status(self, spec: dict[str, Any]) -> dict[str, Any]:
        asked = tuple(spec.get("audiences") or ())
        user = self.authenticator.token_user(spec.get("token", ""), asked)
        if user is None:
            return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        audiences = list(asked or self.authenticator.service_accounts.audiences)
        return {"authenticated": True, "user": user.info(), "audiences": audiences}


def _subject(spec: dict[str, Any]) -> User:
    extra = {key: tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    groups = tuple(spec.get("groups") or ())
    return User(spec.get("user") or "", groups, spec.get("uid") or "", extra)


def _attributes(spec: dict[str, Any], user: User) -> Attributes:
    if asked := spec.get("nonResourceAttributes"):
        return Attributes(user, asked.get("verb", ""), path=asked.get("path", ""))
    asked = spec["resourceAttributes"]
    return Attributes(
        user,
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("version", ""),
        asked.get("resource", ""),
        asked.get("subresource", ""),
        asked.get("namespace", ""),
        asked.get("name", ""),
        equals=_equals(asked.get("fieldSelector") or {}),
    )


def _equals(selector: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    if raw := selector.get("rawSelector"):
        try:
            terms = FieldSelector.parse(raw).terms
        except SelectorError:
            return ()
        return tuple((field, value) for field, equal, value in terms if equal)
    return tuple(
        (term.get("key", ""), term["values"][0])
        for term in selector.get("requirements") or ()
        if term.get("operator") == "In" and len(term.get("values") or ()) == 1
    )


def _access_errors(kind: str, spec: dict[str, Any]) -> list[FieldError]:
    """Validates as pkg/apis/authorization/validation does."""
    errors = []
    attributes = spec.get("resourceAttributes")
    other = spec.get("nonResourceAttributes")
    if bool(attributes) == bool(other):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        errors.append(FieldError("Invalid", "spec.resourceAttributes", attributes, text))
    if kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        text = "at least one of user or group must be specified"
        errors.append(FieldError("Invalid", "spec.user", spec.get("user") or "", text))
    if kind == "LocalSubjectAccessReview" and other:
        text = "disallowed on this kind of request"
        errors.append(FieldError("Invalid", "spec.nonResourceAttributes", other, text))
    return errors


def _check_local(spec: dict[str, Any], namespace: str) -> None:
    if not namespace:
        raise status.bad_request("namespace is required on this type: ")
    if spec["resourceAttributes"].get("namespace", "") != namespace:
        text = "spec.resourceAttributes.namespace must match namespace"
        raise status.bad_request(f"{text}: {namespace}")


def _rules_status(rules: Rules) -> dict[str, Any]:
    resource = [rule.as_object() for rule in rules.rules if rule.resources]
    other = [rule.as_object() for rule in rules.rules if rule.urls]
    answer: dict[str, Any] = {
        "resourceRules": resource,
        "nonResourceRules": other,
        "incomplete": rules.incomplete,
    }
    if rules.problems:
        answer["evaluationError"] = ", ".join(rules.problems)
    return answer
