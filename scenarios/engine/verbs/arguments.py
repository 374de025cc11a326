"""Describes the arguments of a verb as the fields of a dataclass. The annotation of a field gives
its form in the file and its meaning:

    port: Annotated[Port, "the destination port"] = 80

A field without default is required. The schema of scenario files, docs/verbs.md and the reading of
values are all derived from these fields, so they cannot contradict each other.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, Union

from kubewire.components.kubeapi.jsonpath import JSONPath, JSONPathError

_REFERENCE = re.compile(r"\$\{[^}]*\}")
#: One text, or a list of texts.
TEXTS = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}


def _unchanged(value: Any) -> Any:
    return value


def _no_problem(value: Any) -> str:
    return ""


@dataclass(frozen=True, eq=False)
class Form:
    """The form of an argument in a file.

    schema: as JSON Schema. read: converts the value in the file, after ${references} are replaced,
    to the field's value. problem: says what is wrong with a value that the schema accepts.
    keys: the arguments in a mapping.
    """

    schema: Mapping[str, Any]
    read: Callable[[Any], Any] = _unchanged
    problem: Callable[[Any], str] = _no_problem
    keys: type[Arguments] | None = None


@dataclass(frozen=True)
class Argument:
    """One key below a verb. default: MISSING if the key is required."""

    key: str
    field: str
    form: Form
    meaning: str
    default: Any

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


@dataclass(frozen=True)
class Arguments:
    """The arguments of a verb, from a file that the schema has accepted.

    SHORT_FORM: the key that a plain text stands for. SOURCE: whether an expectation needs `from`.
    NEEDS_API: whether the verb needs a lab with Kubernetes.
    """

    SHORT_FORM: ClassVar[str] = ""
    SOURCE: ClassVar[Literal["required", "optional", "none"]] = "required"
    NEEDS_API: ClassVar[bool] = False

    @classmethod
    def read(cls, args: Mapping[str, Any]) -> Self:
        """Reads the arguments. Lists become tuples, and numbers that were ${references}, and so are
        texts now, become numbers again."""
        known = arguments(cls)
        return cls(**{known[key].field: known[key].form.read(value) for key, value in args.items()})

    @classmethod
    def problem(cls, args: Mapping[str, Any]) -> tuple[str, str] | None:
        """A problem that the schema cannot express, as the key ("" for the verb itself) and the
        reason; None if there is none."""
        known = arguments(cls)
        for key, value in args.items():
            if wrong := known[key].form.problem(value):
                return key, wrong
        return cls.contradiction(args)

    @classmethod
    def contradiction(cls, args: Mapping[str, Any]) -> tuple[str, str] | None:
        """A problem of arguments that exclude or need each other, in the form of problem()."""
        return None


def arguments(of: type[Arguments]) -> Mapping[str, Argument]:
    """The arguments by key, in the order of the dataclass."""
    key: Any = of  # mypy treats the class of a dataclass as unhashable
    known: Mapping[str, Argument] = _arguments(key)
    return known


@functools.cache
def _arguments(of: Any) -> Mapping[str, Argument]:
    hints = typing.get_type_hints(of, include_extras=True)
    found = [_argument(item, hints[item.name]) for item in dataclasses.fields(of)]
    return {one.key: one for one in found}


def _argument(item: dataclasses.Field[Any], hint: Any) -> Argument:
    meaning = " ".join(note for note in _notes(hint) if isinstance(note, str))
    return Argument(_camel(item.name), item.name, form_of(hint), meaning, item.default)


def _notes(hint: Any) -> Iterator[Any]:
    yield from getattr(hint, "__metadata__", ())


def form_of(hint: Any) -> Form:
    """The Form in an annotation, or that of a plain type. Raises TypeError for a type without
    one."""
    for note in _notes(hint):
        if isinstance(note, Form):
            return note
    if typing.get_origin(hint) is Annotated:
        return form_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (Union, types.UnionType):
        return form_of(next(one for one in typing.get_args(hint) if one is not types.NoneType))
    try:
        return _PLAIN[hint]
    except (KeyError, TypeError):
        raise TypeError(f"{hint!r}: an argument of this type needs a Form") from None


_PLAIN: Mapping[Any, Form] = {
    str: Form({"type": "string"}, str),
    bool: Form({"type": "boolean"}),
    int: Form({"type": "integer"}, int),
}


def _camel(name: str) -> str:
    """except_self -> exceptSelf."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def schema(of: type[Arguments]) -> dict[str, Any]:
    """These arguments as JSON Schema of a mapping."""
    known = arguments(of)
    properties = {key: {**one.form.schema, **_shown(one.meaning)} for key, one in known.items()}
    required = [key for key, one in known.items() if one.required]
    found: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return {**found, "required": required} if required else found


def _shown(meaning: str) -> dict[str, str]:
    """The text that editors show. It is not "description", from which file/check.py makes error
    messages."""
    return {"markdownDescription": meaning} if meaning else {}


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _each(problem: Callable[[str], str]) -> Callable[[Any], str]:
    def first(value: Any) -> str:
        return next((wrong for one in _tuple(value) if (wrong := problem(one))), "")

    return first


def _pattern_problem(text: str) -> str:
    try:
        re.compile(_REFERENCE.sub("x", text))
    except re.error as error:
        return f"{text!r} is not a regular expression: {error}"
    return ""


def _jsonpath_problem(text: str) -> str:
    try:
        JSONPath.parse(_REFERENCE.sub("x", text))
    except JSONPathError as error:
        return str(error)
    return ""


def choice(*values: str) -> Form:
    """The form of a word out of several."""
    return Form({"enum": list(values)})


def whole(low: int, high: int | None = None) -> Form:
    """The form of an integer within limits."""
    limits = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
    return Form({"type": "integer", **limits}, int)


def mapping(keys: type[Arguments]) -> Form:
    """The form of a mapping with these keys."""

    def problem(value: Any) -> str:
        wrong = keys.problem(value)
        return ": ".join(part for part in wrong if part) if wrong else ""

    return Form(schema(keys), problem=problem, keys=keys)


Texts = Annotated[tuple[str, ...], Form(TEXTS, _tuple)]
#: Regular expressions, for re.search.
Patterns = Annotated[tuple[str, ...], Form(TEXTS, _tuple, _each(_pattern_problem))]
Pattern = Annotated[str, Form({"type": "string"}, str, _pattern_problem)]
JsonPath = Annotated[str, Form({"type": "string"}, str, _jsonpath_problem)]
#: A list of texts.
Listed = Annotated[tuple[str, ...], Form({"type": "array", "items": {"type": "string"}}, _tuple)]
Way = Annotated[
    tuple[str, ...],
    Form({"type": "array", "items": {"type": "string"}, "minItems": 2}, _tuple),
]
#: A text, or a number that is compared as text.
Value = Annotated[str | None, Form({"type": ["string", "integer"]})]
Port = Annotated[int, Form({"$ref": "#/$defs/port"}, int)]
Duration = Annotated[float | str, Form({"$ref": "#/$defs/duration"})]
Numbers = Annotated[
    tuple[int, ...],
    Form({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}, _tuple),
]
