"""The stored policies with their bindings, read and compiled when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.cel import policies as cel
from kubewire.components.apiserver.cel.engine import CompileError, Program
from kubewire.components.apiserver.registry.admission.webhooks.rules import GROUP
from kubewire.components.apiserver.store import Event, Store
from kubewire.components.kubeapi.resources import KubeObject

Compiled = Program | CompileError


@dataclass(frozen=True)
class Policy:
    """A policy; spec is its stored form. expressions has a tuple for each list of the spec."""

    name: str
    spec: Mapping[str, Any]
    conditions: tuple[cel.Condition, ...]
    variables: tuple[tuple[str, Compiled], ...]
    bindings: tuple[KubeObject, ...]
    expressions: Mapping[str, tuple[Compiled | None, ...]]

    @property
    def fails_open(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"


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
        store.subscribe(self._stored, self._changed)
        store.subscribe(self._bound, self._changed)

    def _changed(self, event: Event) -> None:
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
            self._policy(stored.obj, tuple(bindings[stored.key.name]))
            for stored in self._store.items(self._stored)
            if stored.key.name in bindings
        )

    def _policy(self, obj: KubeObject, bindings: tuple[KubeObject, ...]) -> Policy:
        spec = obj.get("spec") or {}
        return Policy(
            obj["metadata"]["name"],
            spec,
            cel.conditions(spec.get("matchConditions") or ()),
            tuple(
                (item["name"], cel.compiled(item["expression"]))
                for item in spec.get("variables") or ()
            ),
            bindings,
            {key: self._compiled(spec, *place) for key, place in self._expressions.items()},
        )

    def _compiled(
        self, spec: Mapping[str, Any], listed: str, field: str
    ) -> tuple[Compiled | None, ...]:
        found: list[Compiled | None] = []
        for item in spec.get(listed) or ():
            value: Any = item
            for name in field.split("."):
                value = (value or {}).get(name)
            found.append(self._compile(value) if value else None)
        return tuple(found)
