"""Checks a document against a JSON Schema and explains each problem in a sentence.

The schemas (lab.schema.json, scenario.schema.json) are JSON Schema 2020-12, so editors can use them
too. The messages of the library describe the schema ("is not valid under any of the given
schemas"); those made here name the key, the allowed values and the most similar one.
Source: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kubewire.scenarios.engine.file.document import Document, KeyPath, SpecError

HERE = Path(__file__).parent

TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


@functools.cache
def validator(schema_name: str) -> Any:
    """The compiled schema in a file ("lab.schema.json")."""
    from jsonschema import Draft202012Validator  # takes 80 ms, so it is imported only if needed

    return Draft202012Validator(json.loads((HERE / schema_name).read_text()))


def check(document: Document, schema_name: str) -> None:
    """Raises SpecError with all problems of a document, in the order of its lines."""
    errors = validator(schema_name).iter_errors(document.data)
    found = [problem for error in errors for problem in explain(error)]
    if found:
        ordered = sorted(
            set(found),
            key=lambda item: (document.lines.get(item[0], 0), str(item[0])),
        )
        raise SpecError([document.problem(path, what) for path, what in ordered])


def explain(error: Any) -> Iterator[tuple[KeyPath, str]]:
    """Yields (key path, sentence) for an error of jsonschema."""
    path: KeyPath = tuple(error.absolute_path)
    match error.validator:
        case "additionalProperties":
            properties = error.schema.get("properties", {})
            allowed = sorted(properties)
            # A name of upstream that has no effect here is accepted, but not suggested.
            listed = ", ".join(name for name in allowed if not properties[name].get("deprecated"))
            for key in sorted(set(error.instance) - set(allowed), key=str):
                yield (
                    (*path, key),
                    f"unknown key{nearest(str(key), allowed)}; allowed here: {listed}",
                )
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            yield path, f"{', '.join(missing)} is missing"
        case "type":
            yield path, f"must be {type_names(error.validator_value)}, not {shown(error.instance)}"
        case "enum":
            allowed = [str(value) for value in error.validator_value]
            hint = nearest(str(error.instance), allowed)
            yield path, f"{shown(error.instance)} is not known{hint}; allowed: {', '.join(allowed)}"
        case "anyOf" | "oneOf":
            yield from best_alternative(error, path)
        case "minProperties" | "maxProperties":
            yield path, wanted(error) or error.message
        case "minItems":
            yield path, "must not be empty"
        case _:
            yield path, readable(error)


def best_alternative(error: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Explains a value that no alternative accepts: by the problems of the alternative that has the
    right type, or else by naming the types of all alternatives."""
    by_branch: dict[int, list[Any]] = {}
    for inner in error.context:
        by_branch.setdefault(int(inner.schema_path[0]), []).append(inner)
    fitting = [branch for branch in by_branch.values() if not _has_other_type(branch, path)]
    if fitting:
        deepest = max(fitting, key=lambda branch: max(len(one.absolute_path) for one in branch))
        for inner in deepest:
            yield from explain(inner)
        return
    types = [name for branch in error.validator_value for name in _branch_types(branch)]
    yield path, f"must be {' or '.join(dict.fromkeys(types))}, not {shown(error.instance)}"


def _has_other_type(errors: Iterable[Any], path: KeyPath) -> bool:
    of_type = [error for error in errors if error.validator in ("type", "enum", "const")]
    return any(tuple(error.absolute_path) == path for error in of_type)


def _branch_types(branch: dict[str, Any]) -> Iterable[str]:
    if "enum" in branch:
        return [", ".join(str(value) for value in branch["enum"])]
    if "$ref" in branch:
        return [branch["$ref"].rsplit("/", 1)[-1]]
    return [type_names(branch.get("type", "a value"))]


def readable(error: Any) -> str:
    """Explains a violated pattern, minimum and the like. The schema's description says more than a
    regular expression."""
    description = wanted(error)
    match error.validator:
        case "minimum":
            return f"must be {error.validator_value} or more, not {shown(error.instance)}"
        case "maximum":
            return f"must be {error.validator_value} or less, not {shown(error.instance)}"
        case "pattern" if description:
            return f"{shown(error.instance)} is not {description}"
        case _:
            return f"{error.message}" + (f" ({description})" if description else "")


def wanted(error: Any) -> str:
    """What a value must be, in words: the keyword "form", which is ours, or else the
    description."""
    return str(error.schema.get("form", error.schema.get("description", "")))


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The text " (did you mean X?)" with the most similar allowed word, or ""."""
    by_folded = {known.lower(): known for known in allowed}
    close = difflib.get_close_matches(word.lower(), list(by_folded), n=1, cutoff=0.6)
    return f" (did you mean {by_folded[close[0]]}?)" if close else ""


def type_names(types: str | list[str]) -> str:
    """Types of JSON Schema in words."""
    listed = [types] if isinstance(types, str) else types
    return " or ".join(TYPE_NAMES.get(name, name) for name in listed)


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
