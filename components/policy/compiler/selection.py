"""Which endpoints belong to which definitions, kept up to date as either changes.

A definition in use is a Group. Every group is filed under anchors: properties of which an endpoint
must have at least one to belong to the group, such as a label that the selector requires. So a
changed endpoint is compared with the groups under its own properties only, and a new group with
the endpoints that have its anchors only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from kubewire.components.policy.compiler.endpoints import NAME_LABEL
from kubewire.components.policy.model import AddressSet, Definition, Endpoint, ObjectKey
from kubewire.components.policy.selectors import And, Equals, In, Selector

#: ("namespace", name), ("label", key, value), ("in namespace", name, key, value), ("namespace
#: label", key, value), or ("any",).
Anchor = tuple[str, ...]

ANY: Anchor = ("any",)

Item = TypeVar("Item")


@dataclass(eq=False)
class Group:
    """A definition that is in use. endpoints: its members. policies: those of which it is the
    subject. sets: the address sets made of it, by id. users: how many policies and sets use it."""

    definition: Definition
    anchors: tuple[Anchor, ...]
    endpoints: set[ObjectKey] = field(default_factory=set)
    policies: set[ObjectKey] = field(default_factory=set)
    sets: dict[str, AddressSet] = field(default_factory=dict)
    users: int = 0


_NO_GROUPS: AbstractSet[Group] = frozenset()


class Selection:
    """The groups and the endpoints, each with an index by anchors."""

    def __init__(self) -> None:
        self.endpoints: dict[ObjectKey, Endpoint] = {}
        self._groups: dict[Definition, Group] = {}
        self._groups_at: defaultdict[Anchor, set[Group]] = defaultdict(set)
        self._endpoints_at: defaultdict[Anchor, set[ObjectKey]] = defaultdict(set)
        self._groups_of: dict[ObjectKey, set[Group]] = {}

    def groups_of(self, key: ObjectKey) -> AbstractSet[Group]:
        """A later put of the endpoint does not change what was returned before."""
        return self._groups_of.get(key, _NO_GROUPS)

    def in_namespace(self, namespace: str) -> list[Endpoint]:
        keys = self._endpoints_at.get(("namespace", namespace), ())
        return [self.endpoints[key] for key in keys]

    def put(self, endpoint: Endpoint) -> None:
        """Adds or replaces an endpoint. The caller compares groups_of before and after."""
        key = endpoint.key
        old = self.endpoints.get(key)
        if old is not None and old.addresses != endpoint.addresses:
            # Who got an address last comes last, so a reader of an address that two pods show
            # for a moment knows which one has it.
            del self.endpoints[key]
        self.endpoints[key] = endpoint
        if old is not None and _labelled_alike(old, endpoint):
            return
        anchors = set(_of_endpoint(endpoint))
        known = set(_of_endpoint(old)) if old is not None else set()
        self._move(key, known, anchors)
        before = self.groups_of(key)
        candidates: set[Group] = set()
        for anchor in (ANY, *anchors):
            candidates |= self._groups_at.get(anchor, set())
        after = {group for group in candidates if endpoint.is_in(group.definition)}
        for group in before - after:
            group.endpoints.discard(key)
        for group in after - before:
            group.endpoints.add(key)
        self._groups_of[key] = after

    def remove(self, key: ObjectKey) -> None:
        old = self.endpoints.pop(key)
        self._move(key, set(_of_endpoint(old)), set())
        for group in self._groups_of.pop(key, _NO_GROUPS):
            group.endpoints.discard(key)

    def acquire(self, definition: Definition) -> Group:
        """The group of a definition, which is made if nothing used it yet."""
        group = self._groups.get(definition)
        if group is None:
            group = Group(definition, tuple(_of_definition(definition)))
            self._groups[definition] = group
            for anchor in group.anchors:
                self._groups_at[anchor].add(group)
            self._fill(group)
        group.users += 1
        return group

    def release(self, group: Group) -> None:
        group.users -= 1
        if group.users:
            return
        del self._groups[group.definition]
        for anchor in group.anchors:
            _discard(self._groups_at, anchor, group)
        for key in group.endpoints:
            self._groups_of[key].discard(group)

    def _fill(self, group: Group) -> None:
        candidates: set[ObjectKey] = set()
        for anchor in group.anchors:
            candidates.update(
                self.endpoints if anchor == ANY else self._endpoints_at.get(anchor, ())
            )
        for key in candidates:
            if self.endpoints[key].is_in(group.definition):
                group.endpoints.add(key)
                self._groups_of[key].add(group)

    def _move(self, key: ObjectKey, old: set[Anchor], new: set[Anchor]) -> None:
        for anchor in old - new:
            _discard(self._endpoints_at, anchor, key)
        for anchor in new - old:
            self._endpoints_at[anchor].add(key)


def _labelled_alike(old: Endpoint, new: Endpoint) -> bool:
    """Whether the endpoints belong to the same groups."""
    return (
        old.labels == new.labels
        and old.namespace_labels == new.namespace_labels
        and old.account_labels == new.account_labels
    )


def _discard(index: dict[Anchor, set[Item]], anchor: Anchor, item: Item) -> None:
    items = index[anchor]
    items.discard(item)
    if not items:
        del index[anchor]


def _of_endpoint(endpoint: Endpoint) -> Iterator[Anchor]:
    """Every anchor under which a group of this endpoint can be filed, except ANY."""
    namespace = endpoint.key.namespace
    if namespace:
        yield ("namespace", namespace)
    for key, value in endpoint.labels.items():
        yield ("label", key, value)
        yield ("in namespace", namespace, key, value)
    for key, value in endpoint.namespace_labels.items():
        if key != NAME_LABEL:
            yield ("namespace label", key, value)


def _of_definition(definition: Definition) -> list[Anchor]:
    """The anchors that leave the fewest candidates: of a label's value if one is required, within
    the namespace if there is one."""
    labels = next(_required(definition.selector), None)
    if definition.namespace:
        if labels is None:
            return [("namespace", definition.namespace)]
        return [("in namespace", definition.namespace, key, value) for key, value in labels]
    if labels is not None:
        return [("label", key, value) for key, value in labels]
    if definition.namespaces is not None:
        for labels in _required(definition.namespaces):
            return [_of_namespace(key, value) for key, value in labels]
    return [ANY]


def _of_namespace(key: str, value: str) -> Anchor:
    """The label that repeats a namespace's name needs no index of its own."""
    return ("namespace", value) if key == NAME_LABEL else ("namespace label", key, value)


def _required(selector: Selector) -> Iterator[list[tuple[str, str]]]:
    """Lists of labels, with their values; what the selector matches has one of each list."""
    terms: Iterable[Selector] = selector.terms if isinstance(selector, And) else (selector,)
    for term in terms:
        if isinstance(term, Equals):
            yield [(term.key, term.value)]
        elif isinstance(term, In):
            yield [(term.key, value) for value in term.values]
        elif isinstance(term, And):
            yield from _required(term)
