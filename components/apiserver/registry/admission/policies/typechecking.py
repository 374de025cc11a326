"""Writes status.typeChecking of ValidatingAdmissionPolicies: what would fail for the types that a
policy names (admission/plugin/policy/validating/typechecking.go).

A wrong policy is stored all the same, because the types may change. So the warnings are in its
status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubewire.components.apiserver.cel import policies as cel
from kubewire.components.apiserver.cel.engine import CompileError
from kubewire.components.apiserver.registry.admission.webhooks.rules import GROUP
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.store import Event, Key, RevisionMismatch, Store
from kubewire.components.kubeapi.resources import KubeObject

STORAGE = f"validatingadmissionpolicies.{GROUP}"
#: The most types that one policy is checked against.
_MOST_TYPES = 10
Schema = Mapping[str, Any]
#: The schema of a resource's objects, or None when they have none.
SchemaOf = Callable[[Served], Schema | None]


class TypeChecks:
    """Checks each policy after it was written, beside the event loop."""

    def __init__(self, store: Store, catalog: Catalog, schema_of: SchemaOf) -> None:
        self._store = store
        self._catalog = catalog
        self._schema_of = schema_of
        self._running: set[asyncio.Task[None]] = set()
        store.subscribe(STORAGE, self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.type == "DELETED" or _is_checked(event.stored.obj):
            return
        task = asyncio.get_running_loop().create_task(self._check(event.stored.key))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _check(self, key: Key) -> None:
        stored = self._store.get(key)
        if stored is None or _is_checked(stored.obj):
            return
        policy = stored.copy()
        found = await self._store.owner.run(lambda: self.warnings(policy))
        checking: KubeObject = {"expressionWarnings": found} if found else {}
        generation = policy["metadata"].get("generation", 0)
        policy["status"] = (policy.get("status") or {}) | {
            "observedGeneration": generation,
            "typeChecking": checking,
        }
        try:
            self._store.update(key, policy, stored.revision)
        except RevisionMismatch:
            return  # The other write has started a check of its own.

    def warnings(self, policy: KubeObject) -> list[dict[str, str]]:
        """The ExpressionWarnings of a policy."""
        spec = policy.get("spec") or {}
        kinds = list(self._kinds(spec))
        found = []
        for index, validation in enumerate(spec.get("validations") or ()):
            for field in ("expression", "messageExpression"):
                texts = [
                    _issue(served, schema, spec, validation.get(field)) for served, schema in kinds
                ]
                if any(texts):
                    place = f"spec.validations[{index}].{field}"
                    warning = "\n".join(text for text in texts if text)
                    found.append({"fieldRef": place, "warning": warning})
        return found

    def _kinds(self, spec: Schema) -> Iterator[tuple[Served, Schema]]:
        """The types that the policy's rules name without a wildcard, sorted."""
        named: dict[tuple[str, str, str], Served] = {}
        for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
            for served in self._named(rule):
                named[served.group, served.version, served.kind] = served
        for key in sorted(named)[:_MOST_TYPES]:
            schema = self._schema_of(named[key])
            if schema is not None:
                yield named[key], schema

    def _named(self, rule: Schema) -> Iterator[Served]:
        listed = [rule.get(key) or [] for key in ("apiGroups", "apiVersions", "resources")]
        if any("*" in item for items in listed for item in items):
            return
        for group in listed[0]:
            for version in listed[1]:
                for plural in listed[2]:
                    served = self._catalog.find(group, version, plural)
                    if served is not None:
                        yield served


def _is_checked(policy: KubeObject) -> bool:
    state = policy.get("status") or {}
    is_current = state.get("observedGeneration") == policy["metadata"].get("generation")
    return is_current and "typeChecking" in state


def _issue(served: Served, schema: Schema, spec: Schema, expression: str | None) -> str:
    if not expression:
        return ""
    known: dict[str, str] = {}
    params = spec.get("paramKind") is not None
    try:
        for variable in spec.get("variables") or ():
            name = variable["name"]
            known[name] = cel.check_typed(variable["expression"], schema, params, known)
        cel.check_typed(expression, schema, params, known)
    except CompileError as error:
        group = f"{served.group}/{served.version}" if served.group else f"/{served.version}"
        return f"{group}, Kind={served.kind}: {error}\n"
    return ""
