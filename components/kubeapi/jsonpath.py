"""JSONPath templates as kubectl has them (https://kubernetes.io/docs/reference/kubectl/jsonpath/).

Supported are fields (.a, ['a'], .a\\.b), [n], [-1], [a:b], [a,b], [*], .*, recursive descent (..a),
filters [?(@.x == "y")] with == != < <= > >= and existence, and text around {...}. {range} is not
supported.

Recursive descent and lists of keys can reach one value in many ways, so a short path can make a
long list of a small object. A server that reads the paths of others refuses them (linear=True).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


class JSONPathError(ValueError):
    """An expression is malformed."""


Selector = Callable[[Any], Iterator[Any]]

TOKEN = re.compile(
    r"""
    (?P<descent>\.\.)
  | (?P<star>\.?\*|\[\*\])
  | \.?\[\?\(\s*(?P<filter>.+?)\s*\)\]
  | \.?\[(?P<keys>\s*'[^']*'(?:\s*,\s*'[^']*')*\s*|\s*"[^"]*"(?:\s*,\s*"[^"]*")*\s*)\]
  | \.?\[(?P<slice>-?\d*:-?\d*(?::-?\d+)?)\]
  | \.?\[(?P<indices>-?\d+(?:\s*,\s*-?\d+)*)\]
  | \.?(?P<field>(?:[A-Za-z0-9_$/-]|\\.)+)
  | (?P<dot>\.)
    """,
    re.VERBOSE,
)
FILTER = re.compile(r"(?P<left>@[^=!<>]*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>.+))?$")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class JSONPath:
    """A parsed template: literal texts and paths, in their order."""

    text: str
    parts: tuple[str | tuple[Selector, ...], ...]

    @classmethod
    def parse(cls, text: str, *, linear: bool = False) -> JSONPath:
        """Parses a template such as "{.status.phase}", or a bare path ".status.phase", which
        kubectl accepts too. Raises JSONPathError."""
        template = text if "{" in text else "{" + text + "}"
        parts: list[str | tuple[Selector, ...]] = []
        position = 0
        while position < len(template):
            opening = template.find("{", position)
            if opening < 0:
                parts.append(template[position:])
                break
            if opening > position:
                parts.append(template[position:opening])
            closing = template.find("}", opening)
            if closing < 0:
                raise JSONPathError(f"{text}: unclosed {{")
            parts.append(_expression(template[opening + 1 : closing].strip(), text, linear))
            position = closing + 1
        return cls(text, tuple(parts))

    def find(self, data: Any) -> list[Any]:
        """The values of all paths in the template. A path that does not exist has no value."""
        values: list[Any] = []
        for part in self.parts:
            if not isinstance(part, str):
                values += _walk(part, [data])
        return values

    def render(self, data: Any) -> str:
        """The text that kubectl prints: the values of one path are separated by spaces."""
        text = ""
        for part in self.parts:
            if isinstance(part, str):
                text += part
            else:
                text += " ".join(as_text(value) for value in _walk(part, [data]))
        return text


def as_text(value: Any) -> str:
    """A value as text: a string as it is, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _expression(text: str, whole: str, linear: bool) -> tuple[Selector, ...]:
    if text.startswith('"'):
        try:
            literal = json.loads(text)
        except ValueError as error:
            raise JSONPathError(f"{whole}: {text!r} is not a string: {error}") from None
        return (lambda _: iter([literal]),)
    text = text.removeprefix("$").removeprefix("@")
    selectors: list[Selector] = []
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match:
            raise JSONPathError(f"{whole}: cannot read {text[position:]!r}")
        if linear and (match["descent"] or "," in (match["keys"] or match["indices"] or "")):
            raise JSONPathError(f"{whole}: {match[0]} is not supported here")
        selectors.append(_selector(match, whole, linear))
        position = match.end()
    return tuple(selectors)


def _selector(match: re.Match[str], whole: str, linear: bool) -> Selector:
    group = match.lastgroup
    value = match.group(group) if group else ""
    match group:
        case "descent":
            return _descend
        case "star":
            return _children
        case "dot":
            return lambda data: iter([data])
        case "field":
            return _field(re.sub(r"\\(.)", r"\1", value))
        case "keys":
            names = re.findall(r"'([^']*)'|\"([^\"]*)\"", value)
            return _union([_field(a or b) for a, b in names])
        case "indices":
            return _union([_index(int(number)) for number in value.split(",")])
        case "slice":
            bounds = [int(part) if part else None for part in value.split(":")]
            return lambda data: iter(data[slice(*bounds)] if isinstance(data, list) else [])
        case _:
            return _filter(value, whole, linear)


def _walk(selectors: Iterable[Selector], values: list[Any]) -> list[Any]:
    for selector in selectors:
        values = [found for value in values for found in selector(value)]
    return values


def _descend(data: Any) -> Iterator[Any]:
    yield data
    for child in _children(data):
        yield from _descend(child)


def _children(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        yield from data.values()
    elif isinstance(data, list):
        yield from data


def _field(name: str) -> Selector:
    def select(data: Any) -> Iterator[Any]:
        if isinstance(data, dict) and name in data:
            yield data[name]

    return select


def _index(number: int) -> Selector:
    def select(data: Any) -> Iterator[Any]:
        if isinstance(data, list) and -len(data) <= number < len(data):
            yield data[number]

    return select


def _union(selectors: list[Selector]) -> Selector:
    return lambda data: (value for selector in selectors for value in selector(data))


def _filter(text: str, whole: str, linear: bool) -> Selector:
    match = FILTER.match(text)
    if not match:
        raise JSONPathError(f"{whole}: cannot read the filter {text!r}")
    left = _expression(match["left"].strip(), whole, linear)
    compare = OPERATORS[match["op"]] if match["op"] else None
    right = _literal(match["right"], whole) if match["right"] else None

    def select(data: Any) -> Iterator[Any]:
        for child in _children(data):
            values = _walk(left, [child])
            if values and (compare is None or _holds(compare, values[0], right)):
                yield child

    return select


def _holds(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    try:
        return bool(compare(left, right))
    except TypeError:  # such as "a" < 1
        return False


def _literal(text: str, whole: str) -> Any:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise JSONPathError(f"{whole}: cannot read {text!r}; a text needs quotes") from None
