"""Writes the files that are generated from the verbs: their part of scenario.schema.json, and
docs/verbs.md. Run it with `python -m kubewire.scenarios.engine.verbs.generate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from kubewire.components.base import sources
from kubewire.scenarios.engine.verbs import VERBS
from kubewire.scenarios.engine.verbs.arguments import TEXTS, Argument, Arguments, arguments, schema

SCHEMA = sources.FOLDER / "scenarios/engine/file/scenario.schema.json"
REFERENCE = sources.FOLDER / "docs/verbs.md"
_WIDTH = 120

_INTRODUCTION = """\
# Verbs

A verb is what an expectation of a scenario file checks: packets, rules, answers, objects. The other
keys of an expectation are described in
[scenarios/engine](../scenarios/engine/README.md#a-scenario). This page is generated from the verbs'
dataclasses ([scenarios/engine/verbs](../scenarios/engine/verbs)) by
`python -m kubewire.scenarios.engine.verbs.generate`.

A **count** is a number, or `{min: N}`, `{max: N}` or both. A **time** is a number of seconds or a
text such as `500ms` or `2m`. A **port** is a number or a `${reference}`. **Texts** are one text or
a list of texts.
"""


def schema_of(current: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of scenario files with the present verbs; its other parts are those of current."""
    definitions = dict(current["$defs"])
    expectation = dict(definitions["expectation"])
    properties = dict(expectation["properties"])
    for name in [name for name, form in properties.items() if form == _reference(name)]:
        del properties[name], definitions[name]
    generated = {name: _definition(verb) for name, verb in VERBS.items()}
    properties |= {name: _reference(name) for name in VERBS}
    definitions["expectation"] = {**expectation, "properties": properties}
    return {**current, "$defs": {**definitions, **generated}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _definition(verb: type[Arguments]) -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, schema(verb)]} if verb.SHORT_FORM else schema(verb)


def json_text(value: Any, indent: str = "", used: int = 0) -> str:
    """The value as JSON. Each part that fits on one line is on one line. used: columns of the line
    that other text takes."""
    short = json.dumps(value, ensure_ascii=False)
    if used + len(short) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return short
    inner = indent + "  "
    if isinstance(value, list):
        lines = [f"{inner}{json_text(one, inner, len(inner) + 1)}" for one in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    heads = {key: f"{inner}{json.dumps(key)}: " for key in value}
    lines = [
        f"{heads[key]}{json_text(one, inner, len(heads[key]) + 1)}" for key, one in value.items()
    ]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def reference() -> str:
    """The text of docs/verbs.md."""
    rows = [f"| [`{name}`](#{name}) | {_summary(verb)} |" for name, verb in VERBS.items()]
    table = "\n".join(["| verb | checks |", "|---|---|", *rows])
    sections = [_section(name, verb) for name, verb in VERBS.items()]
    return "\n".join([_INTRODUCTION, table, *sections]) + "\n"


def _summary(verb: type[Arguments]) -> str:
    return _paragraphs(verb)[0]


def _paragraphs(verb: type[Arguments]) -> list[str]:
    return [" ".join(part.split()) for part in (verb.__doc__ or "").split("\n\n")]


_SOURCES = {
    "required": "It is checked at each place in `from`.",
    "optional": "`from` is optional.",
    "none": "It has no `from`.",
}


def _section(name: str, verb: type[Arguments]) -> str:
    said = [_SOURCES[verb.SOURCE]]
    if verb.SHORT_FORM:
        said.append(f"`{name}: TEXT` is short for `{name}: {{{verb.SHORT_FORM}: TEXT}}`.")
    if verb.NEEDS_API:
        said.append("It needs a lab with Kubernetes.")
    paragraphs = [*_paragraphs(verb), " ".join(said)]
    rows = [row for one in arguments(verb).values() for row in _rows(one)]
    table = "\n".join(["| argument | written as | meaning |", "|---|---|---|", *rows])
    return "\n".join([f"\n## {name}\n", *(f"{text}\n" for text in paragraphs), table])


def _rows(argument: Argument, above: str = "") -> Iterator[str]:
    key = f"{above}{argument.key}"
    needed = " (required)" if argument.required else ""
    meaning = (argument.meaning + _default(argument)).replace("|", "\\|").strip()
    yield f"| `{key}`{needed} | {words(argument.form.schema)} | {meaning} |"
    if argument.form.keys:
        for inner in arguments(argument.form.keys).values():
            yield from _rows(inner, f"{key}.")


def _default(argument: Argument) -> str:
    default = argument.default
    if default is MISSING or default in (None, "", (), 0) or isinstance(default, bool):
        return " (default: true)" if default is True else ""
    values = default if isinstance(default, tuple) else (default,)
    text = ", ".join(str(value).removesuffix(".0") for value in values)
    return f" (default: {text})"


def words(form: Mapping[str, Any]) -> str:
    """A part of the schema in words."""
    if "$ref" in form:
        name = str(form["$ref"]).rpartition("/")[2]
        return "time" if name == "duration" else name
    if "enum" in form:
        return ", ".join(f"`{value}`" for value in form["enum"])
    if form == TEXTS:
        return "texts"
    if "anyOf" in form:
        return " or ".join(words(one) for one in form["anyOf"])
    kind = form.get("type", "value")
    if isinstance(kind, list):
        return " or ".join(words({"type": one}) for one in kind)
    if kind == "array":
        kinds = words(form.get("items", {})).split(" or ")
        return " or ".join(f"list of {one}s" for one in kinds)
    if kind == "integer" and "minimum" in form:
        limit = f" to {form['maximum']}" if "maximum" in form else ""
        return f"number from {form['minimum']}{limit}"
    return {
        "string": "text",
        "integer": "number",
        "boolean": "true or false",
        "object": "mapping",
    }.get(kind, str(kind))


def generated() -> dict[Path, str]:
    """Every generated file -> its text."""
    current = json.loads(SCHEMA.read_text())
    return {SCHEMA: json_text(schema_of(current)) + "\n", REFERENCE: reference()}


def main() -> int:
    """Writes the generated files. Returns as sources.write_generated()."""
    return sources.write_generated(generated())


if __name__ == "__main__":
    sys.exit(main())
