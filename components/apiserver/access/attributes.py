"""What an authorizer decides about, and the text of a refusal
(apiserver/pkg/authorization/authorizer).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.rules import Rule
from kubewire.components.apiserver.users import User

#: The characters of a refusal that a browser could take for markup, as upstream replaces them.
_SANITIZED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Attributes:
    """A request as authorizers see it.

    path is set for requests that are not for a resource, whose verb is the HTTP method in lower
    case. equals are the fields that the field selector compares with one value.
    """

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    equals: tuple[tuple[str, str], ...] = field(default=())

    @property
    def combined(self) -> str:
        """The resource as rules write it: pods/log."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Decision(NamedTuple):
    """reason says who allowed the request, or why an authorizer that could have did not."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class Rules:
    """All that a user may do in a namespace. problems: why the rules are not complete."""

    rules: tuple[Rule, ...] = ()
    problems: tuple[str, ...] = ()
    incomplete: bool = False


class Authorizer(Protocol):
    """decide() runs for every request, in the event loop. rules_for() answers
    SelfSubjectRulesReviews."""

    def decide(self, attributes: Attributes) -> Decision: ...
    def rules_for(self, user: User, namespace: str) -> Rules: ...


def quoted(text: str) -> str:
    """Go's %q."""
    return json.dumps(text, ensure_ascii=False)


def forbidden(attributes: Attributes, reason: str = "") -> status.StatusError:
    """The 403 of a request that no authorizer allowed."""
    text = _refusal(attributes).translate(_SANITIZED)
    if reason:
        text += f": {reason}"
    if not attributes.resource:
        return status.forbidden_path(text)
    return status.forbidden(attributes.group, attributes.resource, attributes.name, text)


def _refusal(asked: Attributes) -> str:
    who = f"User {quoted(asked.user.name)} cannot {asked.verb}"
    if asked.path:
        return f"{who} path {quoted(asked.path)}"
    what = f"resource {quoted(asked.combined)} in API group {quoted(asked.group)}"
    if asked.namespace:
        return f"{who} {what} in the namespace {quoted(asked.namespace)}"
    return f"{who} {what} at the cluster scope"
