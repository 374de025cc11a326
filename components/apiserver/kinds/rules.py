"""The rules of roles as values: which requests they allow, and whether some rules cover others
(component-helpers/auth/rbac/validation).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

ALL = "*"


@dataclass(frozen=True)
class Rule:
    """An rbac.authorization.k8s.io PolicyRule."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Rule:
        return cls(
            tuple(obj.get("verbs") or ()),
            tuple(obj.get("apiGroups") or ()),
            tuple(obj.get("resources") or ()),
            tuple(obj.get("resourceNames") or ()),
            tuple(obj.get("nonResourceURLs") or ()),
        )

    def as_object(self) -> dict[str, Any]:
        fields = {
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
            "resourceNames": self.names,
            "nonResourceURLs": self.urls,
        }
        return {key: list(value) for key, value in fields.items() if value}

    def __str__(self) -> str:
        """As upstream shows a rule in an error."""
        fields = {
            "APIGroups": self.groups,
            "Resources": self.resources,
            "NonResourceURLs": self.urls,
            "ResourceNames": self.names,
            "Verbs": self.verbs,
        }
        shown = [f"{key}:{_quoted(value)}" for key, value in fields.items() if value]
        return "{" + ", ".join(shown) + "}"


#: What a rule with an aggregationRule may come to grant.
EVERYTHING = (
    Rule((ALL,), (ALL,), (ALL,)),
    Rule((ALL,), urls=(ALL,)),
)


def _quoted(values: Iterable[str]) -> str:
    return "[" + " ".join(json.dumps(value, ensure_ascii=False) for value in values) + "]"


def parse(obj: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a Role or ClusterRole."""
    return tuple(Rule.parse(rule) for rule in obj.get("rules") or ())


def allows(
    rule: Rule, verb: str, group: str, resource: str, subresource: str = "", name: str = ""
) -> bool:
    """Whether a rule allows a verb on a resource; name is "" for lists and creations."""
    if not (ALL in rule.verbs or verb in rule.verbs):
        return False
    if not (ALL in rule.groups or group in rule.groups):
        return False
    combined = f"{resource}/{subresource}" if subresource else resource
    fits = ALL in rule.resources or combined in rule.resources
    if not fits and subresource:
        fits = f"*/{subresource}" in rule.resources
    return fits and (not rule.names or name in rule.names)


def allows_path(rule: Rule, verb: str, path: str) -> bool:
    """Whether a rule allows a verb on a path that is not a resource."""
    if not (ALL in rule.verbs or verb in rule.verbs):
        return False
    return any(_path_fits(url, path) for url in rule.urls)


def _path_fits(url: str, path: str) -> bool:
    return url in (ALL, path) or (url.endswith("*") and path.startswith(url.rstrip("*")))


def missing(held: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The part of the wanted rules that the held rules do not cover, sorted by its text."""
    owned = list(held)
    lacking = [part for part in _parts(wanted) if not any(_covers(rule, part) for rule in owned)]
    return sorted(_compact(lacking), key=str)


def _parts(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Each rule as rules of one verb on one resource or path."""
    for rule in rules:
        for verb, url in product(rule.verbs, rule.urls):
            yield Rule((verb,), urls=(url,))
        for group, resource, verb in product(rule.groups, rule.resources, rule.verbs):
            for name in rule.names:
                yield Rule((verb,), (group,), (resource,), (name,))
            if not rule.names:
                yield Rule((verb,), (group,), (resource,))


def _covers(owned: Rule, part: Rule) -> bool:
    if not (ALL in owned.verbs or part.verbs[0] in owned.verbs):
        return False
    if part.urls:
        return any(_url_covers(url, part.urls[0]) for url in owned.urls)
    if not (ALL in owned.groups or part.groups[0] in owned.groups):
        return False
    if not _resource_covers(owned.resources, part.resources[0]):
        return False
    return not owned.names or bool(part.names and part.names[0] in owned.names)


def _url_covers(owned: str, url: str) -> bool:
    return owned in (ALL, url) or (owned.endswith("*") and url.startswith(owned.rstrip("*")))


def _resource_covers(owned: tuple[str, ...], resource: str) -> bool:
    if ALL in owned or resource in owned:
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and f"*/{subresource}" in owned


def _compact(parts: Iterable[Rule]) -> Iterator[Rule]:
    """The rules of one resource as one rule with all their verbs."""
    verbs: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for part in parts:
        if part.urls:
            yield part
        else:
            verbs[part.groups, part.resources, part.names].append(part.verbs[0])
    for (groups, resources, names), together in verbs.items():
        yield Rule(tuple(together), groups, resources, names)
