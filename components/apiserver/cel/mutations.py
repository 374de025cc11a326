"""Expressions that make a patch: Object{...} for an apply configuration, and [JSONPatch{...}]
(policy/mutating/patch and apiserver/pkg/cel/mutation).

Upstream gives such an initializer a type that follows the names of its fields. Here it becomes a
map, since the engine has no types that are made up while it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.components.apiserver.cel import policies
from kubewire.components.apiserver.cel.engine import CompileError, Program

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<string>[rR]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))
    |(?P<initializer>(?:Object(?:\.[A-Za-z_]\w*)*|JSONPatch)\s*\{)
    |(?P<word>[A-Za-z_]\w*|\d[\w.]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = "{[(", "}])"
_WANTED = {"ApplyConfiguration": "Object", "JSONPatch": "list(JSONPatch)"}


def as_maps(expression: str) -> str:
    """The expression with a map in place of each initializer: Object.spec{a: 1} is {"a": 1}."""
    return "".join(_mapped(expression))


def _mapped(expression: str) -> Iterator[str]:
    #: For each open bracket whether it began an initializer.
    open_brackets: list[bool] = []
    expects_field = False
    for match in _TOKEN.finditer(expression):
        kind, text = match.lastgroup, match[0]
        if kind == "space" or (text == "?" and expects_field):
            yield text
            continue
        if kind == "word" and expects_field:
            yield f'"{text}"'
        elif kind == "initializer":
            open_brackets.append(True)
            expects_field = True
            yield "{"
            continue
        else:
            yield text
        if text in _OPENING:
            open_brackets.append(False)
        elif text in _CLOSING and open_brackets:
            open_brackets.pop()
        expects_field = text == "," and bool(open_brackets) and open_brackets[-1]


def check(expression: str, patch_type: str, *, params: bool, variables: Mapping[str, str]) -> None:
    """Checks the expression of a mutation; raises CompileError."""
    have = policies.check(as_maps(expression), "", params=params, variables=variables)
    if have != "DYN" and have.startswith("LIST") != (patch_type == "JSONPatch"):
        raise CompileError(f"must evaluate to {_WANTED[patch_type]} but got {have.lower()}")


def compiled(expression: str) -> Program | CompileError:
    """The program of a stored expression."""
    return policies.compiled(as_maps(expression))


def operations(value: Any) -> list[dict[str, Any]]:
    """The operations of a JSON patch that an expression made."""
    return [
        {key: inner for key, inner in operation.items() if inner is not None or key == "value"}
        for operation in value
    ]
