"""YAML from users and clients: its size, depth and number of values are limited before anything is
built from it.

PyYAML's C loader recurses in C without a limit, so ten kilobytes of "[" end the process with
SIGSEGV, and aliases of aliases stand for more values than memory holds. Here the events of the text
are counted first; an alias counts as many values as the node it refers to, as in go-yaml ("document
contains excessive aliasing"). The types are those of sigs.k8s.io/yaml: a date stays a string, and
1:30 is not a number in base 60.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: libyaml, if PyYAML was built with it: several times faster.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Limits:
    """size in bytes; depth in nested collections; values including those that aliases stand for."""

    size: int = 3 * 1024 * 1024
    depth: int = 100
    values: int = 100_000


DEFAULT = Limits()


class YamlFileError(ValueError):
    """The text is not YAML, or exceeds the limits: "FILE:LINE: problem".

    line counts from 1, and is None if unknown; problem is the text without the place.
    """

    def __init__(self, where: str, line: int | None, problem: str) -> None:
        place = f"{where}:{line}" if line is not None else where
        super().__init__(f"{place}: {problem}")
        self.line = line
        self.problem = problem


class Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader, reduced to JSON's types: no sets, bytes, dates, numbers in base 60 or
    infinite numbers."""

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern)
            for tag, pattern in known
            if not tag.endswith((":timestamp", ":int", ":float", ":value"))
        ]
        for first, known in _Base.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {
        tag: constructor
        for tag, constructor in _Base.yaml_constructors.items()
        if tag is None or tag.endswith((":null", ":str", ":seq", ":map"))
    }


def _integer(value: str) -> int:
    """Also reads 0x1f, 0b1 and, as in YAML 1.1, 017. Raises ValueError."""
    digits = value.replace("_", "")
    sign, digits = (digits[0], digits[1:]) if digits[:1] in ("+", "-") else ("", digits)
    octal = digits.isdigit() and digits.startswith("0")
    return int(sign + digits, 8 if octal else 0)


def _finite(value: str) -> float:
    """Raises ValueError."""
    number = float(value.replace("_", ""))
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _truth(value: str) -> bool:
    """Raises ValueError."""
    try:
        return yaml.SafeLoader.bool_values[value.lower()]
    except KeyError:
        raise ValueError(value) from None


def _scalar(kind: str, parse: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    """A constructor whose errors have a line number; PyYAML's own pass on the errors of int() and
    the like."""

    def construct(loader: Any, node: Any) -> Any:
        value = loader.construct_scalar(node)
        try:
            return parse(value)
        except ValueError:
            shown = value if len(value) <= 40 else f"{value[:40]}..."
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{shown!r} is no {kind}",
                node.start_mark,
            ) from None

    return construct


Loader.add_constructor("tag:yaml.org,2002:int", _scalar("integer", _integer))
Loader.add_constructor("tag:yaml.org,2002:float", _scalar("finite number", _finite))
Loader.add_constructor("tag:yaml.org,2002:bool", _scalar("boolean", _truth))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile("^[-+]?(?:0b[01_]+|0[0-7_]*|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def read_text(path: Path, limits: Limits = DEFAULT) -> str:
    """A file's text, decoded as UTF-8 whatever the locale is. Raises YamlFileError, OSError."""
    with path.open("rb") as file:
        return text_of(file.read(limits.size + 1), str(path), limits)


def text_of(body: bytes, where: str, limits: Limits = DEFAULT) -> str:
    """Raises YamlFileError if the body is not UTF-8, or larger than limits.size."""
    if len(body) > limits.size:
        raise YamlFileError(where, None, f"larger than the {limits.size} bytes that are allowed")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise YamlFileError(where, line, f"not YAML: not a text in UTF-8 ({what})") from None


def read(path: Path, limits: Limits = DEFAULT) -> Any:
    """The document of a file; None for an empty one. Raises YamlFileError, OSError."""
    return load(read_text(path, limits), str(path), limits)


def load(text: str, where: str, limits: Limits = DEFAULT, loader: Any = Loader) -> Any:
    """The document of a text. Raises YamlFileError."""
    check(text, where, limits, loader)
    return _built(where, lambda: yaml.load(text, Loader=loader))


def load_all(text: str, where: str, limits: Limits = DEFAULT, loader: Any = Loader) -> list[Any]:
    """All documents of a text. Raises YamlFileError."""
    check(text, where, limits, loader)
    documents: list[Any] = _built(where, lambda: list(yaml.load_all(text, Loader=loader)))
    return documents


def compose(text: str, where: str, limits: Limits = DEFAULT, loader: Any = Loader) -> Any:
    """The tree of nodes of a text, None if it is empty, for callers that need the lines. Raises
    YamlFileError."""
    check(text, where, limits, loader)
    return _built(where, lambda: yaml.compose(text, Loader=loader))


def compose_all(text: str, where: str, limits: Limits = DEFAULT, loader: Any = Loader) -> list[Any]:
    """The trees of all documents of a text. Raises YamlFileError."""
    check(text, where, limits, loader)
    nodes: list[Any] = _built(where, lambda: list(yaml.compose_all(text, Loader=loader)))
    return nodes


def construct(node: Any, where: str, loader: Any = Loader) -> Any:
    """The data of a tree of nodes that compose() made. Raises YamlFileError."""
    building = loader("")
    try:
        return _built(where, lambda: building.construct_document(node))
    finally:
        building.dispose()


def check(text: str, where: str, limits: Limits = DEFAULT, loader: Any = Loader) -> None:
    """Raises YamlFileError if the text is not YAML or exceeds the limits, without building
    anything."""
    if len(text) > limits.size:  # it has at least as many bytes
        raise YamlFileError(where, None, f"larger than the {limits.size} bytes that are allowed")
    counted = _Count(where, limits)
    _built(where, lambda: counted.all(yaml.parse(text, Loader=loader)))


class _Count:
    """Counts depth and values of a stream of events, and those of each anchor."""

    def __init__(self, where: str, limits: Limits) -> None:
        self._where = where
        self._limits = limits
        self._values = 0
        #: For each open collection: its anchor, the values before it, and the deepest level seen
        #: inside.
        self._open: list[tuple[str | None, int]] = []
        self._deepest: list[int] = []
        self._anchors: dict[str, tuple[int, int] | None] = {}

    def all(self, events: Iterable[Any]) -> None:
        for event in events:
            self._take(event)

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._add(1, 0, event)
            if event.anchor:
                self._anchors[event.anchor] = (1, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self._open.pop()
            levels = self._deepest.pop()
            self._inside(levels + 1)
            if anchor:
                self._anchors[anchor] = (self._values - before, levels + 1)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()

    def _start(self, event: Any) -> None:
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append((event.anchor, self._values))
        self._deepest.append(0)
        self._add(1, 0, event)

    def _alias(self, event: Any) -> None:
        # The composer reports unknown anchors.
        known = self._anchors.get(event.anchor, (1, 0))
        if known is None:
            raise self._error(event, f"the alias *{event.anchor} contains itself")
        self._add(*known, event)

    def _inside(self, levels: int) -> None:
        if self._deepest:
            self._deepest[-1] = max(self._deepest[-1], levels)

    def _add(self, values: int, levels: int, event: Any) -> None:
        self._values += values
        self._inside(levels)
        if len(self._open) + levels > self._limits.depth:
            raise self._error(
                event,
                f"nested deeper than the {self._limits.depth} levels that are allowed",
            )
        if self._values > self._limits.values:
            what = f"more than the {self._limits.values} values that are allowed, with those that aliases stand for"
            raise self._error(event, what)

    def _error(self, event: Any, problem: str) -> YamlFileError:
        return YamlFileError(self._where, event.start_mark.line + 1, problem)


def _built(where: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except YamlFileError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlFileError(where, mark.line + 1 if mark else None, f"not YAML: {what}") from error
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        what = " ".join(str(error).split())
        raise YamlFileError(where, None, f"not YAML: {what}") from error
