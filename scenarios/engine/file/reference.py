"""The lab file described: the schema, a commented example and a reference page, from the
dataclasses and keys.py."""

from __future__ import annotations

import json
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

import yaml

from kubewire.components.addon import Setting
from kubewire.components.networks import registry
from kubewire.components.policy import registry as engines
from kubewire.scenarios.engine.file import upstream
from kubewire.scenarios.engine.file.jsonobject import JsonObject
from kubewire.scenarios.engine.file.keys import DEFINITIONS, KEYS, Key
from kubewire.scenarios.engine.file.spec import CNI, LabSpec, Policy

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}
_TYPE_WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number"}
_WIDTH = 120
#: The column of comments in the example.
_COMMENT = 48


@dataclass(frozen=True)
class Entry:
    """A key with its type: path as in KEYS, the last part of it, its default (MISSING: it must be
    given)."""

    path: str
    hint: Any
    default: Any
    key: Key

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def depth(self) -> int:
        return self.path.count(".")


def entries(holder: type = LabSpec, prefix: str = "", defaults: Any = None) -> Iterator[Entry]:
    """Every key below a dataclass, a mapping before what is in it, in the order of KEYS."""
    if holder in _DESCRIBED_ELSEWHERE:
        yield from _DESCRIBED_ELSEWHERE[holder].entries()
        return
    hints = typing.get_type_hints(holder)
    own = {_path(holder, field, prefix): field for field in fields(holder)}
    for path in sorted(own, key=list(KEYS).index):
        field = own[path]
        default = getattr(defaults, field.name) if defaults is not None else _default(field)
        hint = _of_key(hints[field.name], path)
        yield Entry(path, hint, default, KEYS[path])
        if not KEYS[path].schema:
            yield from _below(hint, path, default)


#: The type of an add-on's setting, by its type in JSON Schema.
_SETTINGS = {"string": str, "integer": int, "boolean": bool, "object": tuple[tuple[str, str], ...]}


def _of_networks() -> Iterator[Entry]:
    """The keys of cni: the registry of networks says which backends and settings there are."""
    choices = {
        "plugin": [one.name for one in registry.NETWORKS],
        "backend": registry.backend_names(),
    }
    defaults = {"plugin": CNI.plugin, "backend": CNI.backend}
    return _of_registry("cni", choices, defaults, registry.settings())


def _of_engines() -> Iterator[Entry]:
    """The keys of policy, from the registry of engines; the defaults are those of a lab file
    without any keys."""
    choices = {
        "engine": [one.name for one in engines.ENGINES],
        "backend": engines.backend_names(),
    }
    plain = Policy().as_dict(CNI.plugin)
    return _of_registry("policy", choices, plain, engines.settings())


def _of_registry(
    part: str,
    choices: Mapping[str, Sequence[str]],
    defaults: Mapping[str, Any],
    settings: Iterable[Setting],
) -> Iterator[Entry]:
    for name, values in choices.items():
        path = f"{part}.{name}"
        yield Entry(path, Literal[tuple(values)], defaults[name], KEYS[path])
    for setting in settings:
        schema = dict(setting.schema)
        bounds: dict[str, Any] = {
            key: schema[key] for key in ("minimum", "maximum") if key in schema
        }
        key = Key(
            schema["description"], limits=bounds, shown=schema.get("examples", [setting.default])[0]
        )
        yield Entry(f"{part}.{setting.name}", _SETTINGS[schema["type"]], None, key)


def _path(holder: type, field: Any, prefix: str) -> str:
    """A JsonObject beside other fields holds what has no field of its own."""
    is_rest = typing.get_type_hints(holder)[field.name] is JsonObject and prefix
    return f"{prefix}*" if is_rest else prefix + _name(field)


def _name(field: Any) -> str:
    """The key of a field: its name, where that is no word of Python's."""
    name: str = field.metadata.get("key", field.name)
    return name


def _of_key(hint: Any, path: str) -> Any:
    """The type of a key's values: its choices where the table lists them, else the field's type."""
    choices = KEYS[path].choices
    return Literal[choices] if choices else _given(hint)


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _below(hint: Any, path: str, default: Any) -> Iterator[Entry]:
    if _is_mapping(hint):
        yield from entries(hint, f"{path}.", None if default is MISSING else default)
    elif (named := _named(hint)) is not None and is_dataclass(named):
        yield Entry(f"{path}.*", named, MISSING, KEYS[f"{path}.*"])
        yield from _below(named, f"{path}.*", MISSING)
    elif (item := _item(hint)) is not None and is_dataclass(item):
        yield Entry(f"{path}[]", item, MISSING, KEYS[f"{path}[]"])
        yield from _below(item, f"{path}[]", MISSING)


def _is_mapping(hint: Any) -> bool:
    """Whether it is a dataclass that stands for a mapping with these fields."""
    return is_dataclass(hint) and hint is not JsonObject


def _given(hint: Any) -> Any:
    """Without None, which stands for a key that is left out."""
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
    return hint


def _item(hint: Any) -> Any:
    """What a list holds."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None


def _named(hint: Any) -> Any:
    """What a mapping holds whose names the user chooses: a dataclass has it as pairs, so that it is
    hashable."""
    item = _item(hint)
    return typing.get_args(item)[1] if typing.get_origin(item) is tuple else None


# --- the schema ---


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12. "form" is our own keyword, for check.py; "patternErrorMessage" is that
    of VS Code."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kubewire lab file",
        "$ref": "#/$defs/lab",
        "$defs": {
            **{name: _with_message(of) for name, of in DEFINITIONS.items()},
            "lab": _object(LabSpec, ""),
        },
    }


def _with_message(of: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = (
        {"patternErrorMessage": f"This is not {of['form']}."}
        if "pattern" in of and "form" in of
        else {}
    )
    return {**of, **message}


def _object(holder: type, prefix: str) -> dict[str, Any]:
    if holder in _DESCRIBED_ELSEWHERE:
        return _DESCRIBED_ELSEWHERE[holder].schema()
    hints = typing.get_type_hints(holder)
    own = [field for field in fields(holder) if prefix + _name(field) in KEYS]
    properties = {
        _name(field): _value(
            _of_key(hints[field.name], prefix + _name(field)), prefix + _name(field)
        )
        for field in own
    }
    if rest := KEYS.get(f"{prefix}*"):
        properties |= (
            dict(upstream.settings()[rest.of_upstream].properties) if rest.of_upstream else {}
        )
    required = [_name(field) for field in own if _default(field) is MISSING]
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": properties,
    }


def _schema_of_registry(part: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A registry's schema, in which KEYS describe the keys that are not settings."""
    properties = {
        name: {**value, "description": KEYS[f"{part}.{name}"].does}
        if f"{part}.{name}" in KEYS
        else value
        for name, value in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def _value(hint: Any, path: str) -> dict[str, Any]:
    key = KEYS[path]
    if key.schema:
        return {**key.schema, "description": key.does}
    described = {"description": key.does} | ({"form": key.form} if key.form else {})
    if key.definition:
        return {"$ref": f"#/$defs/{key.definition}", **described}
    of = _with_message({**_type(hint, path), **key.limits, **described})
    if key.shorthand:
        return {"anyOf": [{"$ref": f"#/$defs/{key.shorthand}"}, of], "description": key.does}
    return of


def _type(hint: Any, path: str) -> dict[str, Any]:
    if typing.get_origin(hint) is Literal:
        return {"enum": list(typing.get_args(hint))}
    if hint is JsonObject:
        names = dict(upstream.settings()[KEYS[path].of_upstream].properties)
        return {"type": "object", "additionalProperties": False, "properties": names}
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _object(hint, f"{path}.")
    if (named := _named(hint)) is not None:
        of = _value(named, f"{path}.*") if is_dataclass(named) else {"type": _TYPES[named]}
        return {"type": "object", "additionalProperties": of}
    if (item := _item(hint)) is not None:
        return {
            "type": "array",
            "items": _value(item, f"{path}[]") if is_dataclass(item) else {"type": _TYPES[item]},
        }
    return {"type": _TYPES[hint]}


@dataclass(frozen=True)
class _Description:
    """Where a mapping's keys are not the fields of its dataclass: its entries and its schema."""

    entries: Callable[[], Iterator[Entry]]
    schema: Callable[[], dict[str, Any]]


_DESCRIBED_ELSEWHERE: Mapping[type, _Description] = {
    CNI: _Description(_of_networks, lambda: _schema_of_registry("cni", registry.schema())),
    Policy: _Description(_of_engines, lambda: _schema_of_registry("policy", engines.schema())),
}


def schema_text() -> str:
    """The file lab.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


# --- the example ---


def example() -> str:
    """A lab file with every key and its default, each with a comment; keys without a default are
    comments."""
    return "".join(line for entry in entries() if _is_line(entry) for line in _lines(entry))


def _is_line(entry: Entry) -> bool:
    """What stands in a list, or below a name that the user chooses, is shown with the list."""
    return "[]" not in entry.path and ("*" not in entry.path or entry.hint is JsonObject)


def _lines(entry: Entry) -> Iterator[str]:
    indent = "  " * entry.depth
    says = _says(entry)
    if entry.name == "*":
        text = f"{indent}# {_flow(entry.key.shown)[1:-1]}"
    elif _is_mapping(entry.hint):
        some = any(_has_default(one) for one in entries() if one.path.startswith(f"{entry.path}."))
        optional = "# " if entry.default is None else ""
        text = (
            f"{indent}{optional}{entry.name}:"
            if some or optional
            else f"{indent}{entry.name}: {{}}"
        )
    elif _has_default(entry) or entry.depth == 0:
        text = f"{indent}{entry.name}: {_flow(_shown(entry))}"
    else:
        text = f"{indent}# {entry.name}: {_flow(_shown(entry))}"
    # Where the value leaves no room beside it, the comment stands above.
    if len(text) >= _COMMENT:
        yield from (f"{indent}# {line}\n" for line in _wrapped(says, _WIDTH - len(indent)))
        yield f"{text}\n"
        return
    first, *others = _wrapped(says, _WIDTH - _COMMENT)
    yield f"{text:<{_COMMENT}}# {first}\n"
    yield from (f"{'':<{_COMMENT}}# {line}\n" for line in others)


def _wrapped(text: str, width: int) -> list[str]:
    """With room for "# " and the indent of a help text."""
    return textwrap.wrap(text, width - 6, break_on_hyphens=False)


def _says(entry: Entry) -> str:
    choices = typing.get_args(entry.hint) if typing.get_origin(entry.hint) is Literal else ()
    others = ", ".join(choice for choice in choices if choice != entry.default)
    return f"{entry.key.does} Or: {others}." if others else entry.key.does


def _has_default(entry: Entry) -> bool:
    if isinstance(entry.default, JsonObject):
        return False
    return (
        entry.default not in (None, MISSING, "", ()) or entry.default is False or entry.default == 0
    )


def _shown(entry: Entry) -> Any:
    if entry.key.shown is not None and not _has_default(entry):
        return entry.key.shown
    if isinstance(entry.default, JsonObject):
        return entry.default.data
    if isinstance(entry.default, tuple):
        return list(entry.default) if _named(entry.hint) is None else dict(entry.default)
    return entry.default


def _flow(value: Any) -> str:
    """A value on one line, as people write it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


# --- the page ---

_HEAD = """\
# The lab file

<!-- Made by `python -m kubewire.scenarios.engine.file.generate` of spec.py and keys.py; change those. -->

A lab file says which lab `kubewire up -f FILE` brings up, and which lab a scenario needs (its key `lab`). It is YAML,
and every key is optional. An error names the file, the line, the key and what is right.

An editor with a YAML language server completes the keys when the file begins with the line

    # yaml-language-server: $schema=PATH/scenarios/engine/file/lab.schema.json

## Every key with its default

```yaml
"""
_TABLE = """\
```

## What each key does

"""


def page() -> str:
    """docs/lab-file.md."""
    return _HEAD + example() + _TABLE + "".join(_sections()).rstrip("\n") + "\n"


def _sections() -> Iterator[str]:
    yield "### Of the lab\n\n" + _HEADER
    whole = [
        entry
        for entry in entries()
        if entry.depth == 0 and not _is_mapping(entry.hint) and _is_line(entry)
    ]
    yield from (_row(entry) for entry in whole)
    for top in entries():
        if top.depth or not _is_line(top):
            continue
        below = [
            entry for entry in entries() if entry.path.startswith((f"{top.path}.", f"{top.path}["))
        ]
        if below:
            yield f"\n### `{top.path}`\n\n{top.key.does}{' ' + top.key.more if top.key.more else ''}\n\n"
            yield _HEADER + "".join(_row(entry) for entry in below)
    yield _OF_UPSTREAM
    for key, of in upstream.settings().items():
        yield from _upstream_section(key, of)


_OF_UPSTREAM = """
## What is upstream's

A name that is not listed is refused. `kubewire up` warns of a name that has no effect, and leaves it out.
"""


def _upstream_section(key: str, of: upstream.Settings) -> Iterator[str]:
    names = list(_dotted(of.properties))
    effective = [name for name in names if not of.is_without_effect(name)]
    yield f"\n### `{key}`: {of.kind}\n\nWhat each of them does: [upstream's reference]({of.reference}).\n\n"
    yield f"With an effect: {_listed(effective)}.\n\n"
    yield f"Without one: {_listed(sorted(of.without_effect))}.\n"


def _dotted(properties: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, of in properties.items():
        if of.get("properties"):
            yield from _dotted(of["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_HEADER = "| key | type | default | what it does |\n|---|---|---|---|\n"


def _row(entry: Entry) -> str:
    does = entry.key.does + (f" {entry.key.more}" if entry.key.more else "")
    cells = (f"`{entry.path}`", _words(entry), _default_words(entry), does)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _words(entry: Entry) -> str:
    """The type for people."""
    hint = entry.hint
    if entry.key.schema:
        return entry.key.form
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if hint is JsonObject:
        return "mapping" if entry.name != "*" else "as upstream's"
    if is_dataclass(hint):
        if not entry.key.shorthand:
            return "mapping"
        return f"{'text' if entry.key.shorthand == 'text' else 'path'}, or mapping"
    if _named(hint) is not None:
        return "mapping"
    if (item := _item(hint)) is not None:
        return f"list of {_TYPE_WORDS[item]}s" if item in _TYPE_WORDS else "list"
    bounds = entry.key.limits
    if "minimum" in bounds and "maximum" in bounds:
        return f"{_TYPE_WORDS[hint]}, {bounds['minimum']} to {bounds['maximum']}"
    if "minimum" in bounds:
        return f"{_TYPE_WORDS[hint]}, {bounds['minimum']} or more"
    return (
        entry.key.form or DEFINITIONS.get(entry.key.definition, {}).get("form") or _TYPE_WORDS[hint]
    )


def _default_words(entry: Entry) -> str:
    if entry.default is MISSING and "*" not in entry.name and "[]" not in entry.name:
        return "must be given"
    return (
        f"`{_flow(entry.default)}`" if _has_default(entry) and not _is_mapping(entry.hint) else ""
    )
