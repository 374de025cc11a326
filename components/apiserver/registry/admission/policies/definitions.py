"""The stored policies with their bindings, read and compiled when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubewire.components.apiserver.cel import policies as cel
from kubewire.components.apiserver.cel.engine import CompileError, Program
from kubewire.components.apiserver.registry.admission.webhooks.rules import GROUP
from kubewire.components.apiserver.store import Event, Store
from kubewire.components.kubeapi.resources import KubeObject

Compiled = Program | CompileError


@dataclass(frozen=True)
class Policy:
    """A policy with its bindings; spec is its stored form.

    Its expressions are compiled by the first request that it concerns, in that request's thread.
    """

    name: str
    spec: Mapping[str, Any]
    bindings: tuple[KubeObject, ...]
    places: Mapping[str, tuple[str, str]]
    compile_text: Callable[[str], Compiled]

    @property
    def fails_open(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"

    @property
    def constraints(self) -> Mapping[str, Any]:
        return self.spec.get("matchConstraints") or {}

    @cached_property
    def conditions(self) -> tuple[cel.Condition, ...]:
        return cel.conditions(self.spec.get("matchConditions") or ())

    @cached_property
    def variables(self) -> tuple[tuple[str, Compiled], ...]:
        listed = self.spec.get("variables") or ()
        return tuple((item["name"], cel.compiled(item["expression"])) for item in listed)

    @cached_property
    def expressions(self) -> Mapping[str, tuple[Compiled | None, ...]]:
        """A tuple for each place of the spec that has expressions."""
        return {key: self._compiled(*place) for key, place in self.places.items()}

    def _compiled(self, listed: str, field: str) -> tuple[Compiled | None, ...]:
        found: list[Compiled | None] = []
        for item in self.spec.get(listed) or ():
            value: Any = item
            for name in field.split("."):
                value = (value or {}).get(name)
            found.append(self.compile_text(value) if value else None)
        return tuple(found)


class Policies:
    """The policies of one kind that have a binding, by name."""

    def __init__(
        self,
        store: Store,
        kind: str,
        expressions: Mapping[str, tuple[str, str]],
        compile_text: Callable[[str], Compiled] = cel.compiled,
    ) -> None:
        """kind is "validating" or "mutating".

        expressions names the expressions to compile: a key for each, the list of the spec and the
        field of an item, with a dot between two levels.
        """
        self._store = store
        self._stored = f"{kind}admissionpolicies.{GROUP}"
        self._bound = f"{kind}admissionpolicybindings.{GROUP}"
        self._expressions = expressions
        self._compile = compile_text
        self._policies: tuple[Policy, ...] | None = None
        #: Grows with each change, for caches.
        self.serial = 0
        store.subscribe(self._stored, self._changed)
        store.subscribe(self._bound, self._changed)

    def _changed(self, event: Event) -> None:
        self.serial += 1
        self._policies = None

    def all(self) -> tuple[Policy, ...]:
        found = self._policies
        if found is None:
            found = self._policies = self._read()
        return found

    def _read(self) -> tuple[Policy, ...]:
        bindings: dict[str, list[KubeObject]] = {}
        for stored in self._store.items(self._bound):
            name = (stored.obj.get("spec") or {}).get("policyName", "")
            bindings.setdefault(name, []).append(stored.obj)
        return tuple(
            Policy(
                stored.key.name,
                stored.obj.get("spec") or {},
                tuple(bindings[stored.key.name]),
                self._expressions,
                self._compile,
            )
            for stored in self._store.items(self._stored)
            if stored.key.name in bindings
        )
