"""The plugin MutatingAdmissionPolicy (admission/plugin/policy/mutating)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.cel import mutations
from kubewire.components.apiserver.cel.authorization import Decide
from kubewire.components.apiserver.cel.engine import CompileError, EvaluationError, Program
from kubewire.components.apiserver.cel.policies import Variables, all_hold
from kubewire.components.apiserver.registry import patch
from kubewire.components.apiserver.registry.admission.changes import Decode, replace_object
from kubewire.components.apiserver.registry.admission.plugin import Attributes
from kubewire.components.apiserver.registry.admission.policies.definitions import Policies
from kubewire.components.apiserver.registry.admission.policies.matching import Use, values
from kubewire.components.apiserver.registry.admission.policies.policyplugin import PolicyPlugin
from kubewire.components.apiserver.registry.admission.reinvocations import Reinvocations
from kubewire.components.apiserver.registry.catalog import Catalog
from kubewire.components.apiserver.registry.fieldownership import ListKeysOf, list_keys_for
from kubewire.components.apiserver.store import Store

_EXPRESSIONS = {
    "ApplyConfiguration": ("mutations", "applyConfiguration.expression"),
    "JSONPatch": ("mutations", "jsonPatch.expression"),
}


class MutatingAdmissionPolicy(PolicyPlugin):
    """Applies the mutations of every policy that is bound for a request, in the order of names."""

    name = "MutatingAdmissionPolicy"

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        decide: Decide,
        decode: Decode,
        list_keys: ListKeysOf,
    ) -> None:
        policies = Policies(store, "mutating", _EXPRESSIONS, mutations.compiled)
        super().__init__(store, catalog, policies, decide)
        self._decode = decode
        self._list_keys = list_keys

    def admit(self, attributes: Attributes) -> None:
        policies = self._policies.all()
        if not policies or not attributes.obj:
            return
        again: Reinvocations = attributes.memory.setdefault(self.name, Reinvocations())
        if attributes.reinvoked and again.output != attributes.obj:
            again.require()
        for policy in policies:
            for use in list(self._matcher.uses(policy, attributes)):
                if isinstance(use, tuple):
                    if not policy.fails_open:
                        raise _denied(attributes, policy.name, *use)
                    continue
                self._use(use, attributes, again)
        again.output = patch.json_patch(attributes.obj, [])

    def _use(self, use: Use, attributes: Attributes, again: Reinvocations) -> None:
        if attributes.reinvoked and use.key not in again.required:
            return
        try:
            if not all_hold(
                use.policy.conditions, values(use, attributes, self.store, self._decide)
            ):
                return
            changed = [
                self._mutated(use, attributes, mutation, index)
                for index, mutation in enumerate(use.policy.spec.get("mutations") or ())
            ]
        except (EvaluationError, patch.PatchError, _Refused) as error:
            if use.policy.fails_open:
                return
            raise _denied(
                attributes, use.policy.name, use.binding["metadata"]["name"], str(error)
            ) from error
        if any(changed):
            again.require()
            attributes.reinvoke = True
        if use.policy.spec.get("reinvocationPolicy") == "IfNeeded":
            again.asked.add(use.key)

    def _mutated(
        self, use: Use, attributes: Attributes, mutation: Mapping[str, Any], index: int
    ) -> bool:
        """Applies one mutation, which sees those before it; whether it changed the object."""
        kind = mutation["patchType"]
        program = use.policy.expressions[kind][index]
        assert program is not None
        seen = values(use, attributes, self.store, self._decide)
        before = seen["object"]
        made = self._evaluate(use, program, seen)
        if kind == "JSONPatch":
            try:
                after = patch.json_patch(before, mutations.operations(made))
            except patch.PatchTestFailed:
                return False
            except patch.PatchError as error:
                raise _Refused(f"JSON Patch: {error}") from error
        else:
            keys = list_keys_for(use.served, self._list_keys)
            after = merged(before, made, keys)
        if after == before:
            return False
        replace_object(attributes, use.served, after, self._decode)
        return True

    def _evaluate(self, use: Use, program: Program | CompileError, seen: Mapping[str, Any]) -> Any:
        return Variables(use.policy.variables, seen).evaluate(program, seen)


class _Refused(ValueError):
    """A mutation that cannot be applied."""


def merged(live: Any, applied: Any, keys: Any, path: tuple[str, ...] = ()) -> Any:
    """The live value with an apply configuration merged into it; raises when that would replace an
    atomic list.

    keys gives the keys of a list's items: () for a set and None for a list that is one value.
    """
    if isinstance(applied, dict):
        result = dict(live) if isinstance(live, dict) else {}
        for name, value in applied.items():
            result[name] = merged(result.get(name), value, keys, (*path, name))
        return result
    if not isinstance(applied, list):
        return applied
    identity = keys(path)
    if identity is None:
        place = "." + ".".join(path)
        text = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs"
        raise _Refused(f"error applying patch: {text}: {place}")
    return _merged_list(live if isinstance(live, list) else [], applied, identity, keys, path)


def _merged_list(
    live: list[Any], applied: list[Any], identity: tuple[str, ...], keys: Any, path: tuple[str, ...]
) -> list[Any]:
    def place(item: Any) -> Any:
        return tuple(item.get(key) for key in identity) if identity else item

    result = list(live)
    positions = {place(item): index for index, item in enumerate(result)}
    for item in applied:
        index = positions.get(place(item))
        if index is None:
            result.append(merged(None, item, keys, path))
        elif identity:
            result[index] = merged(result[index], item, keys, path)
    return result


def _denied(attributes: Attributes, policy: str, binding: str, message: str) -> status.StatusError:
    text = f"policy '{policy}' with binding '{binding}' denied request: {message}"
    served = attributes.served
    error = status.forbidden(served.group, served.plural, attributes.name, text)
    error.body["message"] = text
    error.body["reason"] = "Invalid"
    error.body["details"]["causes"] = [{"message": text}]
    return error
