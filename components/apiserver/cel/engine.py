"""Compiles and evaluates expressions.

A Program is compiled once and evaluated for every request. Values are decoded JSON, and also
datetime, timedelta and bytes where a schema says so. One difference in form remains from cel-go: an
unset optional variable is a pair of variables, because the library cannot be given an optional.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

_EXTENSIONS = """
extensions:
  - name: bindings
  - name: lists
  - name: optional
  - name: sets
  - name: strings
  - name: two-var-comprehensions
"""


class CompileError(ValueError):
    """The expression is wrong; the text is that of cel-go, with line and column."""


class EvaluationError(ValueError):
    """The evaluation failed; the text is that of cel-go, such as "no such key: a"."""


class Environment:
    """The variables that expressions may use, by the names of their types.

    pool has the descriptors of types that are messages. With dynamic_results an expression whose
    type only its evaluation shows may stand where a type is asked for.
    """

    def __init__(
        self, variables: Mapping[str, str], pool: Any = None, dynamic_results: bool = False
    ) -> None:
        from kubewire.components.apiserver.cel import library, values

        cel = _cel()
        self._dynamic_results = dynamic_results
        self._environment = cel.NewEnv(
            values.pool() if pool is None else pool,
            config=cel.NewEnvConfigFromYaml(_EXTENSIONS),
            variables={name: _type(text) for name, text in variables.items()},
            extensions=[library.extension()],
        )

    def compile(self, expression: str, result: str = "", wanted: str = "") -> Program:
        """Parses and checks; result is the name of a type that it must have, such as "BOOL".

        Raises CompileError, with the text `wanted` when only the type is another one.
        """
        try:
            compiled = self._environment.compile(expression)
        except RuntimeError as error:
            raise CompileError(_compile_text(str(error))) from error
        have = compiled.return_type().name()
        if result and have != result and not (self._dynamic_results and have == "DYN"):
            raise CompileError(wanted)
        return Program(compiled, have, "authorizer" in expression)


def _type(text: str) -> Any:
    types = _cel().Type
    simple = {"dyn": types.DYN, "bool": types.BOOL, "string": types.STRING, "int": types.INT}
    if text in simple:
        return simple[text]
    if text == "map":
        return types.Map(types.STRING, types.DYN)
    return types(text)


class Program:
    """A compiled expression; evaluate() may be called from any thread."""

    def __init__(self, compiled: Any, result: str, asks: bool) -> None:
        self._compiled = compiled
        self.result = result
        #: Whether the expression may use the authorizer.
        self._asks = asks

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value as decoded JSON; raises EvaluationError.

        The variable `authorizer` is an authorization.Asker.
        """
        values = dict(variables)
        asker = values.pop("authorizer", None)
        if asker is None or not self._asks:
            return self._evaluated(values)
        with asker.variables() as asking:
            return self._evaluated(values | asking)

    def _evaluated(self, values: dict[str, Any]) -> Any:
        try:
            value = self._compiled.eval(data=values)
            failed = value.type() == _cel().Type.ERROR
            plain = value.plain_value()
        except (RuntimeError, TypeError) as error:
            raise EvaluationError(_go_text(str(error))) from error
        if failed:
            raise EvaluationError(_go_text(str(plain)))
        return plain


@cache
def _cel() -> Any:
    from cel_expr_python import cel

    return cel


_CODE = re.compile(r"^[A-Z_]+: ")
#: Texts of cel-cpp at evaluation, and those of cel-go for the same.
_GO_TEXTS = (
    (re.compile(r'Key not found in map : "?(.*?)"?$'), r"no such key: \1"),
    (re.compile(r"Index error: index=(-?\d+) size=\d+$"), r"index out of bounds: \1"),
    (re.compile(r"divide by zero$"), "division by zero"),
    (re.compile(r"No matching overloads found.*"), "no such overload"),
)


def _go_text(said: str) -> str:
    text = _CODE.sub("", said)
    for pattern, replacement in _GO_TEXTS:
        if pattern.match(text):
            return pattern.sub(replacement, text)
    return text


def _compile_text(said: str) -> str:
    return _CODE.sub("", said).removesuffix(" [INVALID_ARGUMENT]")
