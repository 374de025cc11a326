"""Reads YAML and remembers the line of each key, so that error messages can name it.

It follows the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema). PyYAML by
default reads YAML 1.1, where on, off, yes and no are booleans and 1:30 is the number 90, which
surprises users. Here they are texts. A duplicate key is an error and does not silently replace the
first one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kubewire.components.base import yamlfile

KeyPath = tuple[str | int, ...]

#: Limits of lab and scenario files. The largest file of the catalogue has 600 values, and checking
#: a value against the schema takes 0.1 ms.
LIMITS = yamlfile.Limits(size=1024 * 1024, values=20_000)
#: Limits of manifests. They come from elsewhere and are not checked against a schema here;
#: bundle.yaml of prometheus-operator has 4 MB.
MANIFESTS = yamlfile.Limits(size=8 * 1024 * 1024, values=200_000)


class Loader(yamlfile.Loader):
    """PyYAML's safe loader, with the booleans and numbers of YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":int"))]
        for first, known in yamlfile.Loader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile("^(?:true|True|TRUE|false|False|FALSE)$"),
    "tTfF",
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile("^[-+]?(?:0|[1-9][0-9]*)$"),
    "-+0123456789",
)


class SpecError(ValueError):
    """A lab or scenario file is wrong. str() has one line per problem: "FILE:LINE: KEY: what"."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_text(path: Path, limits: yamlfile.Limits = LIMITS) -> str:
    """The text of a lab or scenario file, as UTF-8 in any locale; "-" is standard input, as with
    kubectl. Raises SpecError if it is not text or too large, and OSError."""
    try:
        if str(path) == "-":
            return yamlfile.text_of(sys.stdin.buffer.read(limits.size + 1), "-", limits)
        return yamlfile.read_text(path, limits)
    except yamlfile.YamlFileError as error:
        raise SpecError([str(error)]) from error


def read_manifests(path: Path) -> str:
    """The text of a file of manifests. Raises SpecError, OSError."""
    return read_text(path, MANIFESTS)


def documents(text: str, where: str) -> list[Any]:
    """All documents in a text of manifests. Raises SpecError."""
    try:
        return yamlfile.load_all(text, where, MANIFESTS, Loader)
    except yamlfile.YamlFileError as error:
        raise SpecError([str(error)]) from error


@dataclass(frozen=True)
class Document:
    """Parsed data, the line of each key path (the first line is 1), and the name of the file in
    error messages."""

    data: Any
    lines: Mapping[KeyPath, int]
    where: str

    @classmethod
    def parse(cls, text: str, where: str) -> Document:
        """Parses YAML. Raises SpecError for malformed text."""
        try:
            node = yamlfile.compose(text, where, LIMITS, Loader)
            if node is None:
                return cls({}, {(): 1}, where)
            lines: dict[KeyPath, int] = {}
            problems = list(_index(node, (), lines, where))
            if problems:
                raise SpecError(problems)
            return cls(yamlfile.construct(node, where, Loader), lines, where)
        except yamlfile.YamlFileError as error:
            raise SpecError([str(error)]) from error

    @classmethod
    def of(cls, data: Any, where: str) -> Document:
        """A document of data that does not come from a file; errors name the key and no line."""
        return cls(data, {}, where)

    def at(self, path: KeyPath) -> str:
        """The text "FILE:LINE" for a key, or for the nearest enclosing key with a known line."""
        for end in range(len(path), -1, -1):
            if line := self.lines.get(path[:end]):
                return f"{self.where}:{line}"
        return self.where

    def problem(self, path: KeyPath, what: str) -> str:
        """A line for SpecError."""
        key = dotted(path)
        return f"{self.at(path)}: {key}: {what}" if key else f"{self.at(path)}: {what}"


def dotted(path: KeyPath) -> str:
    """The path as text: ("steps", 0, "expect") -> "steps[0].expect"."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


#: Tags of allowed keys: texts, because JSON allows no others, and "<<", which merges a mapping.
_TEXT_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _index(node: Any, path: KeyPath, lines: dict[KeyPath, int], where: str) -> Iterator[str]:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _index(item, (*path, number), lines, where)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if key.tag not in _TEXT_KEYS:
                shown = name if isinstance(key, yaml.ScalarNode) else "a collection"
                problem = f"the key {shown} must be a text; put it in quotes"
                yield f"{where}:{line}: {dotted(path)}: {problem}"
                continue
            if name in seen:
                yield f"{where}:{line}: {dotted((*path, name))}: the key is given twice"
            seen.add(name)
            lines[(*path, name)] = line
            yield from _index(value, (*path, name), lines, where)
