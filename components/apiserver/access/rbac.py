"""Role-based access control: bindings give users the rules of roles
(https://kubernetes.io/docs/reference/access-authn-authz/rbac/).

Decisions must cost next to nothing, because every request needs one. Two things see to it. Bindings
are indexed by subject, so that only those of the user are looked at. And what they allow in a
namespace is kept as a Grant, in which a request is a few look-ups in dictionaries, until a role or
a binding changes.

The reason of a decision needs more: it names the binding. Only SubjectAccessReviews show it, so
explain() walks the bindings instead, in the same order as upstream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from kubewire.components.apiserver.access.attributes import Attributes, Decision, Rules, quoted
from kubewire.components.apiserver.kinds import rules
from kubewire.components.apiserver.kinds.rules import ALL, Rule
from kubewire.components.apiserver.store import Event, Key, Store, Stored
from kubewire.components.apiserver.users import User, service_account_name
from kubewire.components.kubeapi.resources import KubeObject

_GROUP = "rbac.authorization.k8s.io"
_ROLES = f"roles.{_GROUP}"
_CLUSTER_ROLES = f"clusterroles.{_GROUP}"
_ROLE_BINDINGS = f"rolebindings.{_GROUP}"
_CLUSTER_ROLE_BINDINGS = f"clusterrolebindings.{_GROUP}"
#: Users and namespaces whose grants are kept.
_GRANTS = 4096
#: Shapes of requests that a grant remembers.
_SHAPES = 256
#: What is remembered of a shape that was not asked yet; no object has such a name.
_UNKNOWN = frozenset({"\0"})
_ALLOWED = Decision(True)


class RoleNotFound(Exception):
    """A binding refers to a role that does not exist; the text is upstream's."""


class Source(NamedTuple):
    """A binding and the subject of it that is the user."""

    binding: KubeObject
    subject: Mapping[str, Any]

    def __str__(self) -> str:
        metadata = self.binding["metadata"]
        namespace = metadata.get("namespace", "")
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        name = f"{metadata['name']}/{namespace}" if namespace else metadata["name"]
        reference = self.binding["roleRef"]
        role = f"{reference['kind']} {quoted(reference['name'])}"
        subject = str(self.subject["name"])
        if self.subject["kind"] == "ServiceAccount":
            subject += f"/{self.subject.get('namespace') or namespace}"
        return f"{kind} {quoted(name)} of {role} to {self.subject['kind']} {quoted(subject)}"


class Grant:
    """What a user may do in a namespace, arranged for quick answers."""

    __slots__ = ("_asked", "_paths", "_resources", "refusal")

    def __init__(self, granted: Iterable[Rule], problems: Iterable[str] = ()) -> None:
        #: The decision about everything else.
        self.refusal = Decision(False, _problem_text(problems))
        #: By verb, group and resource with subresource: the names, or None for all.
        self._resources: dict[tuple[str, str, str], frozenset[str] | None] = {}
        self._paths: list[Rule] = []
        #: The names of what was asked, by verb, group, resource and subresource.
        self._asked: dict[tuple[str, str, str, str], frozenset[str] | None] = {}
        for rule in granted:
            if rule.urls:
                self._paths.append(rule)
            for key in _keys(rule):
                self._add(key, rule.names)

    def _add(self, key: tuple[str, str, str], names: tuple[str, ...]) -> None:
        before = self._resources.get(key, frozenset())
        keep_all = not names or before is None
        self._resources[key] = None if keep_all else (before or frozenset()) | frozenset(names)

    def allows(self, asked: Attributes) -> bool:
        if asked.path:
            return any(rules.allows_path(rule, asked.verb, asked.path) for rule in self._paths)
        shape = (asked.verb, asked.group, asked.resource, asked.subresource)
        # Worker threads ask, too, so it is read once.
        names = self._asked.get(shape, _UNKNOWN)
        if names is _UNKNOWN:
            if len(self._asked) >= _SHAPES:
                self._asked.clear()
            names = self._asked[shape] = self._names(asked)
        return names is None or asked.name in names

    def _names(self, asked: Attributes) -> frozenset[str] | None:
        """The names of objects that a request of this shape may be about, or None for all."""
        resources = [asked.combined, ALL]
        if asked.subresource:
            resources.append(f"*/{asked.subresource}")
        granted = self._resources
        found: frozenset[str] = frozenset()
        for verb in (asked.verb, ALL):
            for group in (asked.group, ALL):
                for resource in resources:
                    key = (verb, group, resource)
                    if key in granted:
                        names = granted[key]
                        if names is None:
                            return None
                        found |= names
        return found


def _keys(rule: Rule) -> Iterator[tuple[str, str, str]]:
    for verb in rule.verbs:
        for group in rule.groups:
            for resource in rule.resources:
                yield verb, group, resource


class RbacAuthorizer:
    """Follows the roles and bindings of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: By subject, then by key; subjects are ("User" or "Group", name).
        self._bindings: defaultdict[tuple[str, str], dict[Key, Stored]] = defaultdict(dict)
        self._grants: dict[tuple[str, tuple[str, ...], str], Grant] = {}
        #: Namespaces with bindings; in all others only the cluster's bindings count.
        self._bound: defaultdict[str, int] = defaultdict(int)
        for resource in (_CLUSTER_ROLE_BINDINGS, _ROLE_BINDINGS):
            for stored in store.items(resource):
                self._add(stored)
            store.subscribe(resource, self._on_binding)
        for resource in (_ROLES, _CLUSTER_ROLES):
            store.subscribe(resource, lambda event: self._grants.clear())

    def _on_binding(self, event: Event) -> None:
        self._grants.clear()
        if event.previous is not None:
            self._remove(event.previous)
        if event.type != "DELETED":
            self._add(event.stored)

    def _add(self, stored: Stored) -> None:
        self._bound[stored.key.namespace] += 1
        for subject in stored.obj.get("subjects") or ():
            self._bindings[_identity(subject, stored.key.namespace)][stored.key] = stored

    def _remove(self, stored: Stored) -> None:
        self._bound[stored.key.namespace] -= 1
        for subject in stored.obj.get("subjects") or ():
            identity = _identity(subject, stored.key.namespace)
            self._bindings[identity].pop(stored.key, None)
            if not self._bindings[identity]:
                del self._bindings[identity]

    def decide(self, attributes: Attributes) -> Decision:
        user = attributes.user
        namespace = attributes.namespace if self._bound.get(attributes.namespace) else ""
        key = (user.name, user.groups, namespace)
        grant = self._grants.get(key)
        if grant is None:
            if len(self._grants) >= _GRANTS:
                self._grants.clear()
            found = self.rules_for(user, namespace)
            grant = self._grants[key] = Grant(found.rules, found.problems)
        return _ALLOWED if grant.allows(attributes) else grant.refusal

    def explain(self, attributes: Attributes) -> Decision:
        """The same decision, with the binding that allows the request as its reason."""
        problems = []
        for source, granted in self._sources(attributes.user, attributes.namespace):
            try:
                allowing = any(_allows(rule, attributes) for rule in granted())
            except RoleNotFound as error:
                problems.append(str(error))
                continue
            if allowing:
                return Decision(True, f"RBAC: allowed by {source}")
        return Decision(False, _problem_text(problems))

    def rules_for(self, user: User, namespace: str) -> Rules:
        found: list[Rule] = []
        problems = []
        for _, granted in self._sources(user, namespace):
            try:
                found += granted()
            except RoleNotFound as error:
                problems.append(str(error))
        return Rules(tuple(found), tuple(problems), bool(problems))

    def role_rules(self, reference: Mapping[str, Any], namespace: str) -> tuple[Rule, ...]:
        """The rules of the role that a binding in this namespace refers to. Raises
        RoleNotFound."""
        kind, name = reference.get("kind", ""), reference.get("name", "")
        resource = _ROLES if kind == "Role" else _CLUSTER_ROLES
        stored = self._store.get(Key(resource, namespace if kind == "Role" else "", name))
        if stored is None:
            raise RoleNotFound(f"{kind.lower()}.{_GROUP} {quoted(name)} not found")
        return rules.parse(stored.obj)

    def _sources(self, user: User, namespace: str) -> Iterator[tuple[Source, Any]]:
        """The user's bindings, those of the cluster first, each with a function that returns its
        rules."""
        identities = [("User", user.name), *(("Group", group) for group in user.groups)]
        mine: dict[Key, Stored] = {}
        for identity in identities:
            mine |= self._bindings.get(identity, {})
        for key in sorted(mine, key=lambda key: (key.namespace, key.name)):
            if key.namespace not in ("", namespace):
                continue
            binding = mine[key].obj
            subject = next(
                one
                for one in binding.get("subjects") or ()
                if _identity(one, key.namespace) in identities
            )
            yield (
                Source(binding, subject),
                lambda binding=binding, key=key: self.role_rules(binding["roleRef"], key.namespace),
            )


def _identity(subject: Mapping[str, Any], namespace: str) -> tuple[str, str]:
    if subject.get("kind") == "ServiceAccount":
        place = subject.get("namespace") or namespace
        return "User", service_account_name(place, subject.get("name", ""))
    return subject.get("kind", ""), subject.get("name", "")


def _allows(rule: Rule, asked: Attributes) -> bool:
    if asked.path:
        return rules.allows_path(rule, asked.verb, asked.path)
    return rules.allows(
        rule, asked.verb, asked.group, asked.resource, asked.subresource, asked.name
    )


def _problem_text(problems: Iterable[str]) -> str:
    unique = list(dict.fromkeys(problems))
    if not unique:
        return ""
    return "RBAC: " + (unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]")
