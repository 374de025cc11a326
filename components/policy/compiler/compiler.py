"""The compiler: takes API objects one by one, and keeps the State that follows from all of them.

One changed object touches only what depends on it. Objects may come in any order: a pod before its
namespace, a policy before the pods that it selects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from kubewire.components.policy.compiler.endpoints import (
    labels_of,
    namespace_labels,
    node_endpoint,
    pod_endpoint,
    service_account,
)
from kubewire.components.policy.compiler.kinds import key_of, kind_of
from kubewire.components.policy.compiler.members import Members, members_of
from kubewire.components.policy.compiler.selection import Group, Selection
from kubewire.components.policy.compiler.tiers import BUILT_IN, applied
from kubewire.components.policy.compiler.translation import InvalidPolicy, Translation
from kubewire.components.policy.model import (
    AddressSet,
    Applied,
    Changes,
    Endpoint,
    ObjectKey,
    Policy,
    State,
    Tier,
)

Object = Mapping[str, Any]
Labels = Mapping[str, str]

_NOTHING = Translation()


class Compiler:
    """apply and delete feed it; changes and state read it."""

    def __init__(self) -> None:
        self._selection = Selection()
        self._members = Members()
        self._policies: dict[ObjectKey, Policy] = {}
        self._subjects: dict[ObjectKey, Group] = {}
        self._sets: dict[str, AddressSet] = {}
        self._set_groups: dict[str, Group] = {}
        self._set_users: defaultdict[str, int] = defaultdict(int)
        self._applied: dict[ObjectKey, Applied] = {}
        self._translations: dict[ObjectKey, Translation] = {}
        self._invalid: dict[ObjectKey, str] = {}
        self._tiers: dict[str, Tier] = {tier.name: tier for tier in BUILT_IN}
        self._namespace_labels: dict[str, Labels] = {}
        self._account_labels: dict[tuple[str, str], Labels] = {}
        #: Endpoints whose Applied must be computed again before anyone reads it.
        self._stale: set[ObjectKey] = set()
        #: As they were when changes() was called last, of those touched since.
        self._old_endpoints: dict[ObjectKey, tuple[Endpoint | None, Applied | None]] = {}
        self._old_policies: dict[ObjectKey, Policy | None] = {}
        self._old_tiers: tuple[Tier, ...] = self._sorted_tiers()

    # What goes in

    def apply(self, obj: Object) -> None:
        """An object that is new or has changed. Other kinds than those of kinds.py are ignored. An
        object that cannot be compiled counts as absent, and problems says why."""
        key = key_of(obj)
        if key is None:
            return
        try:
            put = self._read(key, obj)
        except InvalidPolicy as error:
            self._refuse(key, str(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # A file that no API server has checked: a list where the kind has a map, and the like.
            self._refuse(key, f"does not have the form of its kind: {error!r}")
        else:
            self._invalid.pop(key, None)
            put()

    def _read(self, key: ObjectKey, obj: Object) -> Callable[[], None]:
        """What remains to be done when the object has been read without an error."""
        kind = kind_of(obj)
        if kind is not None:
            return partial(self._translate, key, kind.translate(obj))
        if key.kind == "Pod":
            return partial(self._put, key, self._pod(key, obj))
        if key.kind == "Node":
            return partial(self._put, key, node_endpoint(obj))
        if key.kind == "Namespace":
            return partial(self._put_namespace, key.name, namespace_labels(key.name, obj))
        return partial(self._put_account, key, labels_of(obj))

    def _refuse(self, key: ObjectKey, reason: str) -> None:
        self.delete(key)
        self._invalid[key] = reason

    def delete(self, key: ObjectKey) -> None:
        """An object that is gone. Unknown ones are ignored."""
        self._invalid.pop(key, None)
        if key in self._translations:
            self._translate(key, _NOTHING)
            del self._translations[key]
        elif key.kind in {"Pod", "Node"}:
            self._put(key, None)
        elif key.kind == "Namespace":
            self._put_namespace(key.name, None)
        elif key.kind == "ServiceAccount":
            self._put_account(key, None)

    # What comes out

    @property
    def state(self) -> State:
        """A view: it follows later changes, except the tuple of tiers."""
        self._refresh()
        return State(
            tiers=self._sorted_tiers(),
            policies=MappingProxyType(self._policies),
            sets=MappingProxyType(self._sets),
            members=self._members,
            endpoints=MappingProxyType(self._selection.endpoints),
            applied=MappingProxyType(self._applied),
        )

    @property
    def problems(self) -> Mapping[ObjectKey, str]:
        """Of each object that has no effect, or not all of it: why."""
        found = {
            key: translation.problem
            for key, translation in self._translations.items()
            if translation.problem
        }
        for key, policy in self._policies.items():
            if policy.tier not in self._tiers:
                found[key] = f"spec.tier: the tier {policy.tier!r} does not exist"
        return {**found, **self._invalid}

    def changes(self) -> Changes:
        """What has changed since the last call. What changed and changed back is left out."""
        self._refresh()
        sets, new_sets, old_sets = self._members.changes()
        tiers = self._sorted_tiers()
        endpoints = self._selection.endpoints
        found = Changes(
            endpoints=frozenset(
                key
                for key, (endpoint, acting) in self._old_endpoints.items()
                if _differs(endpoint, endpoints.get(key)) or acting != self._applied.get(key)
            ),
            policies=frozenset(
                key
                for key, policy in self._old_policies.items()
                if policy != self._policies.get(key)
            ),
            sets=sets,
            new_sets=new_sets,
            old_sets=old_sets,
            tiers=tiers != self._old_tiers,
        )
        self._old_endpoints, self._old_policies, self._old_tiers = {}, {}, tiers
        return found

    # Pods, and what gives them labels

    def _pod(self, key: ObjectKey, pod: Object) -> Endpoint | None:
        account = (key.namespace, service_account(pod))
        of_account = self._account_labels.get(account, {})
        return pod_endpoint(pod, self._labels_in(key.namespace), of_account)

    def _put_namespace(self, name: str, labels: Labels | None) -> None:
        self._namespace_labels.pop(name, None)
        if labels is not None:
            self._namespace_labels[name] = labels
        for endpoint in self._selection.in_namespace(name):
            self._put(endpoint.key, self._in_its_namespace(endpoint))

    def _put_account(self, key: ObjectKey, labels: Labels | None) -> None:
        account = (key.namespace, key.name)
        self._account_labels.pop(account, None)
        if labels:
            self._account_labels[account] = labels
        for endpoint in self._selection.in_namespace(key.namespace):
            if endpoint.service_account == key.name:
                self._put(endpoint.key, replace(endpoint, account_labels=labels or {}))

    def _labels_in(self, namespace: str) -> Labels:
        """Those of a namespace, which all of its endpoints share."""
        known = self._namespace_labels.get(namespace)
        return namespace_labels(namespace, None) if known is None else known

    def _in_its_namespace(self, endpoint: Endpoint) -> Endpoint:
        """With the labels that its namespace has now."""
        namespace = endpoint.key.namespace
        if not namespace:
            return endpoint
        return replace(endpoint, namespace_labels=self._labels_in(namespace))

    def _put(self, key: ObjectKey, new: Endpoint | None) -> None:
        """Replaces an endpoint, and moves its addresses from the old sets to the new ones."""
        selection = self._selection
        old = selection.endpoints.get(key)
        if new == old:
            return
        self._touch(key)
        before = selection.groups_of(key)
        if new is None:
            selection.remove(key)
            self._applied.pop(key, None)
        else:
            selection.put(new)
        after = selection.groups_of(key)
        if new is not None and (old is None or _acting(before ^ after)):
            self._stale.add(key)
        same = old is not None and new is not None and _contributes_same(old, new)
        if new is not None:
            self._contribute(new, after - before if same else after)
        if old is not None:
            self._withdraw(old, before - after if same else before)

    def _contribute(self, endpoint: Endpoint, groups: Iterable[Group]) -> None:
        for group in groups:
            for made in group.sets.values():
                self._members.add(made.id, members_of(endpoint, made))

    def _withdraw(self, endpoint: Endpoint, groups: Iterable[Group]) -> None:
        for group in groups:
            for made in group.sets.values():
                self._members.remove(made.id, members_of(endpoint, made))

    # Policies

    def _translate(self, source: ObjectKey, new: Translation) -> None:
        """Replaces what an object contributes. What is new comes before what is old goes, so that
        what both have stays."""
        old = self._translations.get(source, _NOTHING)
        self._translations[source] = new
        if new == old:
            return
        for made in new.sets:
            self._acquire_set(made)
        for made in old.sets:
            self._release_set(made.id)
        kept = {policy.key for policy in new.policies}
        for policy in old.policies:
            if policy.key not in kept:
                self._remove_policy(policy.key)
        for policy in new.policies:
            self._put_policy(policy)
        self._replace_endpoints(old.endpoints, new.endpoints)
        if old.tiers != new.tiers:
            self._replace_tiers(old.tiers, new.tiers)

    def _acquire_set(self, made: AddressSet) -> None:
        self._set_users[made.id] += 1
        if self._set_users[made.id] > 1:
            return
        group = self._selection.acquire(made.definition)
        self._sets[made.id] = made
        self._set_groups[made.id] = group
        group.sets[made.id] = made
        self._members.create(made.id)
        for key in group.endpoints:
            self._members.add(made.id, members_of(self._selection.endpoints[key], made))

    def _release_set(self, set_id: str) -> None:
        self._set_users[set_id] -= 1
        if self._set_users[set_id]:
            return
        del self._set_users[set_id], self._sets[set_id]
        group = self._set_groups.pop(set_id)
        del group.sets[set_id]
        self._members.drop(set_id)
        self._selection.release(group)

    def _put_policy(self, new: Policy) -> None:
        old = self._policies.get(new.key)
        if old == new:
            return
        self._old_policies.setdefault(new.key, old)
        if old is not None and _acts_alike(old, new):
            self._policies[new.key] = new
            return
        if old is not None:
            self._remove_policy(new.key)
        group = self._selection.acquire(new.subjects)
        self._policies[new.key] = new
        self._subjects[new.key] = group
        group.policies.add(new.key)
        self._make_stale(group.endpoints)

    def _remove_policy(self, key: ObjectKey) -> None:
        self._old_policies.setdefault(key, self._policies.pop(key))
        group = self._subjects.pop(key)
        group.policies.discard(key)
        self._make_stale(group.endpoints)
        self._selection.release(group)

    def _replace_endpoints(self, old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]) -> None:
        kept = {endpoint.key for endpoint in new}
        for endpoint in old:
            if endpoint.key not in kept:
                self._put(endpoint.key, None)
        for endpoint in new:
            self._put(endpoint.key, self._in_its_namespace(endpoint))

    def _replace_tiers(self, old: tuple[Tier, ...], new: tuple[Tier, ...]) -> None:
        """An object may redefine a built-in tier; without it the built-in one is back."""
        built_in = {tier.name: tier for tier in BUILT_IN}
        for tier in old:
            del self._tiers[tier.name]
            if tier.name in built_in:
                self._tiers[tier.name] = built_in[tier.name]
        self._tiers.update((tier.name, tier) for tier in new)
        for group in set(self._subjects.values()):
            self._make_stale(group.endpoints)

    # What follows from both

    def _touch(self, key: ObjectKey) -> None:
        if key not in self._old_endpoints:
            before = (self._selection.endpoints.get(key), self._applied.get(key))
            self._old_endpoints[key] = before

    def _make_stale(self, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            self._touch(key)
            self._stale.add(key)

    def _refresh(self) -> None:
        """Computes Applied of those endpoints for which it may have changed. Pods with the same
        policies share one value."""
        shared: dict[frozenset[ObjectKey], Applied] = {}
        for key in self._stale:
            if key not in self._selection.endpoints:
                continue
            groups = self._selection.groups_of(key)
            keys = frozenset[ObjectKey]().union(*(group.policies for group in groups))
            found = shared.get(keys)
            if found is None:
                policies = [self._policies[policy] for policy in keys]
                found = shared[keys] = applied(policies, self._tiers)
            self._applied[key] = found
        self._stale.clear()

    def _sorted_tiers(self) -> tuple[Tier, ...]:
        return tuple(sorted(self._tiers.values(), key=lambda tier: (tier.order, tier.name)))


def _differs(old: Endpoint | None, new: Endpoint | None) -> bool:
    """Whether an engine must look at an endpoint again; it reads no labels."""
    if old is None or new is None:
        return old is not new
    return not _contributes_same(old, new) or (old.node, old.uid, old.interface) != (
        new.node,
        new.uid,
        new.interface,
    )


def _contributes_same(old: Endpoint, new: Endpoint) -> bool:
    return old.addresses == new.addresses and old.ports == new.ports


def _acting(groups: Iterable[Group]) -> bool:
    return any(group.policies for group in groups)


def _acts_alike(old: Policy, new: Policy) -> bool:
    """Whether Applied is the same: it has only keys, and these in the order of their policies."""
    return (old.subjects, old.directions, old.tier, old.order) == (
        new.subjects,
        new.directions,
        new.tier,
        new.order,
    )
