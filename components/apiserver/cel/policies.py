"""Expressions of match conditions and admission policies
(apiserver/pkg/admission/plugin/cel and policy).

They see the whole request: object, oldObject, request, namespaceObject, params and variables, and
the authorizer of its user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from kubewire.components.apiserver.cel.authorization import VARIABLES as AUTHORIZER
from kubewire.components.apiserver.cel.engine import (
    CompileError,
    Environment,
    EvaluationError,
    Program,
)
from kubewire.components.apiserver.cel.schematypes import Schema, Types

_STRING: Schema = {"type": "string"}
_MAP: Schema = {"type": "object", "additionalProperties": _STRING}
_LIST: Schema = {"type": "array", "items": _STRING}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


_KIND = _object(group=_STRING, version=_STRING, kind=_STRING)
_RESOURCE = _object(group=_STRING, version=_STRING, resource=_STRING)
_REQUEST = _object(
    kind=_KIND,
    resource=_RESOURCE,
    subResource=_STRING,
    requestKind=_KIND,
    requestResource=_RESOURCE,
    requestSubResource=_STRING,
    name=_STRING,
    namespace=_STRING,
    operation=_STRING,
    userInfo=_object(
        username=_STRING,
        uid=_STRING,
        groups=_LIST,
        extra={"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}},
    ),
    dryRun={"type": "boolean"},
    options={"x-kubernetes-int-or-string": True},
)
_NAMESPACE = _object(
    metadata=_object(
        name=_STRING,
        generateName=_STRING,
        namespace=_STRING,
        labels=_MAP,
        annotations=_MAP,
        UID=_STRING,
        creationTimestamp={"type": "string", "format": "date-time"},
        deletionGracePeriodSeconds={"type": "integer"},
        deletionTimestamp={"type": "string", "format": "date-time"},
        generation={"type": "integer"},
        resourceVersion=_STRING,
        finalizers=_LIST,
    ),
    spec=_object(finalizers=_LIST),
    status=_object(
        conditions={
            "type": "array",
            "items": _object(
                status=_STRING,
                type=_STRING,
                lastTransitionTime={"type": "string", "format": "date-time"},
                message=_STRING,
                reason=_STRING,
            ),
        },
        phase=_STRING,
    ),
)
_NAMES = ("object", "oldObject", "request", "namespaceObject")


#: Types of variables that a message can express; all others are dynamic.
_VARIABLES: Mapping[str, Schema] = {
    "BOOL": {"type": "boolean"},
    "INT": {"type": "integer"},
    "STRING": _STRING,
    "LIST<STRING>": _LIST,
}
_DYNAMIC: Schema = {"x-kubernetes-int-or-string": True}


@lru_cache(maxsize=64)
def checking(
    params: bool, variables: tuple[tuple[str, str], ...] | None, authorizer: bool
) -> Environment:
    """The environment in which an expression is checked when it is written.

    variables has the name and the type of each variable; without it there is no `variables`.
    """
    return _environment(params, variables, None, authorizer)


def check_typed(expression: str, schema: Schema, params: bool, variables: Mapping[str, str]) -> str:
    """Checks an expression for objects of one schema, and returns its type; raises CompileError."""
    environment = _environment(params, tuple(variables.items()), schema)
    try:
        return environment.compile(expression).result
    except CompileError as error:
        raise CompileError(f"compilation failed: {error}") from error


def _environment(
    params: bool,
    variables: tuple[tuple[str, str], ...] | None,
    schema: Schema | None,
    authorizer: bool = True,
) -> Environment:
    types = Types()
    typed = {"request": types.name(_REQUEST), "namespaceObject": types.name(_NAMESPACE)}
    if variables is not None:
        known = {name: _VARIABLES.get(kind, _DYNAMIC) for name, kind in variables}
        typed["variables"] = types.name({"type": "object", "properties": known})
    if schema is not None:
        typed["object"] = typed["oldObject"] = types.name(schema)
    if authorizer:
        typed |= AUTHORIZER
    names = _all(params, variables is not None)
    return Environment(dict.fromkeys(names, "dyn") | typed, types.pool())


@cache
def evaluating() -> Environment:
    """The environment for evaluation, in which every value is dynamic."""
    names = dict.fromkeys(_all(True, True), "dyn")
    return Environment(names | AUTHORIZER, dynamic_results=True)


def _all(params: bool, variables: bool) -> list[str]:
    extra = (["params"] if params else []) + (["variables"] if variables else [])
    return [*_NAMES, *extra]


def check(
    expression: str,
    result: str,
    *,
    params: bool = False,
    variables: Mapping[str, str] | None = None,
    authorizer: bool = True,
) -> str:
    """Checks an expression whose type must be one of result, such as "BOOL" or "STRING|NULL".

    variables are the names and types of those defined before it, and authorizer says whether it may
    ask that. Returns the type. Raises CompileError with upstream's text.
    """
    known = None if variables is None else tuple(variables.items())
    try:
        program = checking(params, known, authorizer).compile(expression)
    except CompileError as error:
        raise CompileError(f"compilation failed: {error}") from error
    wanted = [name for name in result.split("|") if name]
    if wanted and program.result not in wanted:
        names = [_go_type(name) for name in wanted]
        asked = names[0] if len(names) == 1 else f"one of [{' '.join(names)}]"
        raise CompileError(f"must evaluate to {asked} but got {_go_type(program.result)}")
    return program.result


def _go_type(name: str) -> str:
    return name.lower().replace("<", "(").replace(">", ")").replace("null", "null_type")


@dataclass(frozen=True)
class Condition:
    """A compiled matchCondition."""

    expression: str
    program: Program | CompileError

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Raises EvaluationError."""
        if isinstance(self.program, CompileError):
            raise EvaluationError(f"compilation error: {self.program}")
        return self.program.evaluate(values) is True


def conditions(listed: Iterable[Mapping[str, str]]) -> tuple[Condition, ...]:
    return tuple(Condition(item["expression"], compiled(item["expression"])) for item in listed)


def compiled(expression: str) -> Program | CompileError:
    """The program of a stored expression; what does not compile fails when it is evaluated."""
    try:
        return evaluating().compile(expression)
    except CompileError as error:
        return error


def all_hold(listed: Iterable[Condition], values: Mapping[str, Any]) -> bool:
    """Whether every condition holds; a false one decides, whatever fails besides.

    Raises EvaluationError with all failures (webhook/matchconditions).
    """
    failures = []
    for condition in listed:
        try:
            if not condition.holds(values):
                return False
        except EvaluationError as error:
            failures.append(f"expression '{condition.expression}' resulted in error: {error}")
    if failures:
        joined = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"
        raise EvaluationError(joined)
    return True


class Variables:
    """The variables of a policy for one request, each evaluated with those before it.

    One that fails is absent, and fails what uses it.
    """

    def __init__(
        self, programs: Iterable[tuple[str, Program | CompileError]], values: Mapping[str, Any]
    ) -> None:
        self.values: dict[str, Any] = {}
        self._failed: dict[str, str] = {}
        for name, program in programs:
            try:
                if isinstance(program, CompileError):
                    raise EvaluationError(f"compilation error: {program}")
                self.values[name] = program.evaluate({**values, "variables": self.values})
            except EvaluationError as error:
                self._failed[name] = str(error)

    def evaluate(self, program: Program | CompileError, values: Mapping[str, Any]) -> Any:
        """Evaluates an expression that may use the variables; raises EvaluationError."""
        if isinstance(program, CompileError):
            raise EvaluationError(f"compilation error: {program}")
        try:
            return program.evaluate({**values, "variables": self.values})
        except EvaluationError as error:
            name = str(error).removeprefix("no such key: ")
            if name in self._failed:
                text = f'composited variable "{name}" fails to evaluate: {self._failed[name]}'
                raise EvaluationError(text) from error
            raise
