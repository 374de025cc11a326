"""The authorizer of expressions, which asks what the user of a request may do (library/authz.go):
authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed().

Its values pass through the engine as texts, so they name the user and what is asked; who decides is
known only while an expression is evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.cel.values import Function, make
from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.users import (
    AUTHENTICATED,
    User,
    service_account_groups,
    service_account_name,
)
from kubewire.components.kubeapi.selectors import FieldSelector, SelectorError

AUTHORIZER = "kubernetes.authorization.Authorizer"
RESOURCE_CHECK = "kubernetes.authorization.ResourceCheck"
_PATH_CHECK = "kubernetes.authorization.PathCheck"
_GROUP_CHECK = "kubernetes.authorization.GroupCheck"
_DECISION = "kubernetes.authorization.Decision"

#: The variables of expressions, with their types.
VARIABLES = {"authorizer": AUTHORIZER, "authorizer.requestResource": RESOURCE_CHECK}


@dataclass(frozen=True)
class Question:
    """What an expression asks; path is set when it is not about a resource.

    equals are the fields that a field selector compares with one value.
    """

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    equals: tuple[tuple[str, str], ...] = ()


#: Whether that is allowed, and why.
Decide = Callable[[Question], tuple[bool, str]]
_DECIDE: ContextVar[Decide] = ContextVar("decide")


@dataclass(frozen=True)
class Asker:
    """Who decides, and for which user; resource has the fields of the request's own resource."""

    decide: Decide
    user: User
    resource: Mapping[str, str]

    @contextmanager
    def variables(self) -> Iterator[dict[str, Any]]:
        """The variables for an evaluation inside the context."""
        user = {"user": self.user.info()}
        token = _DECIDE.set(self.decide)
        try:
            yield {
                "authorizer": _value(AUTHORIZER, user),
                "authorizer.requestResource": _value(RESOURCE_CHECK, {**user, **self.resource}),
            }
        finally:
            _DECIDE.reset(token)


def _value(kind: str, state: Mapping[str, Any]) -> Any:
    return make(kind, json.dumps(state))


def _with(kind: str, field: str, needed: bool = False) -> Callable[[Any, str], Any]:
    """A step that adds what is asked; an empty text is an error where one is needed."""

    def step(before: Any, text: str) -> Any:
        if needed and not text.strip():
            raise ValueError(f"{field} must not be empty")
        return _value(kind, {**json.loads(before.text), field: text})

    return step


def _service_account(authorizer: Any, namespace: str, name: str) -> Any:
    if names.dns1123_subdomain(name):
        raise ValueError("Invalid service account name")
    if names.dns1123_label(namespace):
        raise ValueError("Invalid service account namespace")
    groups = [*service_account_groups(namespace), AUTHENTICATED]
    user = {"username": service_account_name(namespace, name), "groups": groups}
    return _value(AUTHORIZER, {**json.loads(authorizer.text), "user": user})


def _check(asked: Any, verb: str) -> Any:
    allowed, reason = _DECIDE.get()(_question(json.loads(asked.text), verb))
    return _value(_DECISION, {"allowed": allowed, "reason": reason})


def _question(state: dict[str, Any], verb: str) -> Question:
    info = state.pop("user")
    extra = {key: tuple(listed) for key, listed in info.get("extra", {}).items()}
    user = User(info["username"], tuple(info["groups"]), info.get("uid", ""), extra)
    if "path" in state:
        return Question(user, verb, path=state["path"])
    fields = _equals(state.pop("fieldSelector", ""))
    # Rules know no labels, so a selector of labels changes no decision.
    state.pop("labelSelector", None)
    return Question(user, verb, equals=fields, **state)


def _equals(selector: str) -> tuple[tuple[str, str], ...]:
    """What a selector asks for; one that cannot be parsed asks for nothing."""
    try:
        terms = FieldSelector.parse(selector).terms if selector else ()
    except SelectorError:
        return ()
    return tuple((field, value) for field, equal, value in terms if equal)


def _of(field: str) -> Callable[[Any], Any]:
    return lambda decision: json.loads(decision.text)[field]


_RESOURCE_STEPS = ("subresource", "namespace", "name", "fieldSelector", "labelSelector")

FUNCTIONS: tuple[Function, ...] = (
    ("path", True, (AUTHORIZER, "string"), _PATH_CHECK, _with(_PATH_CHECK, "path", needed=True)),
    ("group", True, (AUTHORIZER, "string"), _GROUP_CHECK, _with(_GROUP_CHECK, "group")),
    ("serviceAccount", True, (AUTHORIZER, "string", "string"), AUTHORIZER, _service_account),
    (
        "resource",
        True,
        (_GROUP_CHECK, "string"),
        RESOURCE_CHECK,
        _with(RESOURCE_CHECK, "resource", needed=True),
    ),
    *(
        (field, True, (RESOURCE_CHECK, "string"), RESOURCE_CHECK, _with(RESOURCE_CHECK, field))
        for field in _RESOURCE_STEPS
    ),
    ("check", True, (_PATH_CHECK, "string"), _DECISION, _check),
    ("check", True, (RESOURCE_CHECK, "string"), _DECISION, _check),
    ("allowed", True, (_DECISION,), "bool", _of("allowed")),
    ("reason", True, (_DECISION,), "string", _of("reason")),
    ("errored", True, (_DECISION,), "bool", lambda decision: False),
    ("error", True, (_DECISION,), "string", lambda decision: ""),
)
