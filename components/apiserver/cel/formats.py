"""The library of named formats: format.dns1123Label().validate("a") (library/format.go).

Upstream's validate() returns an optional list of errors, and format.named() an optional format. The
engine takes no optionals from Python, so both are a message with the methods hasValue() and
value(). The engine keeps orValue() to itself, and takes a method's name for one message only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

from kubewire.components.apiserver.cel.values import Function, make
from kubewire.components.apiserver.kinds import names

FORMAT = "kubernetes.NamedFormat"
#: What is optional: a list of errors, or the name of a format. It is absent when it is empty.
_OPTIONAL = "kubernetes.OptionalValue"

Check = Callable[[str], list[str]]

_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.I)
_BASE64 = re.compile(
    "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")


def _prefix(check: Check) -> Check:
    """A name that something will be appended to may end with a dash."""
    return lambda text: check(names.masked_trailing_dash(text))


def _uri(text: str) -> list[str]:
    if not text:
        return [f'parse "{text}": empty url']
    if not (urlsplit(text).scheme or text.startswith("/")):
        return [f'parse "{text}": invalid URI for request']
    return []


def _matching(pattern: re.Pattern[str], error: str) -> Check:
    return lambda text: [] if pattern.fullmatch(text) else [error]


def _parsed(pattern: re.Pattern[str], parse: Callable[[str], Any], error: str) -> Check:
    def check(text: str) -> list[str]:
        if not pattern.fullmatch(text):
            return [error]
        try:
            parse(text.upper())
        except ValueError:
            return [error]
        return []

    return check


FORMATS: Mapping[str, Check] = {
    "dns1123Label": names.dns1123_label,
    "dns1123Subdomain": names.dns1123_subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified_name,
    "dns1123LabelPrefix": _prefix(names.dns1123_label),
    "dns1123SubdomainPrefix": _prefix(names.dns1123_subdomain),
    "dns1035LabelPrefix": _prefix(names.dns1035_label),
    "labelValue": names.label_value,
    "uri": _uri,
    "uuid": _matching(_UUID, "does not match the UUID format"),
    "byte": _matching(_BASE64, "invalid base64"),
    "date": _parsed(_DATE, date.fromisoformat, "invalid date"),
    "datetime": _parsed(_TIME, datetime.fromisoformat, "invalid datetime"),
}


def _constant(name: str) -> Callable[[], Any]:
    return lambda: make(FORMAT, name)


def _validate(form: Any, text: str) -> Any:
    return make(_OPTIONAL, json.dumps(FORMATS[form.text](text)))


def _named(name: str) -> Any:
    return make(_OPTIONAL, json.dumps(name if name in FORMATS else ""))


def _has_value(optional: Any) -> bool:
    return bool(json.loads(optional.text))


def _value(optional: Any) -> Any:
    inside = json.loads(optional.text)
    if not inside:
        raise ValueError("optional.none() dereference")
    return make(FORMAT, inside) if isinstance(inside, str) else inside


FUNCTIONS: tuple[Function, ...] = (
    *((f"format.{name}", False, (), FORMAT, _constant(name)) for name in FORMATS),
    ("format.named", False, ("string",), _OPTIONAL, _named),
    ("validate", True, (FORMAT, "string"), _OPTIONAL, _validate),
    ("hasValue", True, (_OPTIONAL,), "bool", _has_value),
    ("value", True, (_OPTIONAL,), "dyn", _value),
)
