"""The rules for names: the character rules of apimachinery's util/validation, with its texts.

Each function returns the complaints about one value, which is an empty list when the value is
valid. The sources are k8s.io/apimachinery/pkg/util/validation and pkg/api/validate/content.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

#: A rule returns the complaints about one string.
NameRule = Callable[[str], list[str]]

LABEL_LENGTH = 63
SUBDOMAIN_LENGTH = 253

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_UNDERSCORE = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_UNDERSCORE = _LABEL_UNDERSCORE + r"(\." + _LABEL_UNDERSCORE + ")*"
_WILDCARD = r"\*\." + _SUBDOMAIN
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"

EMPTY = "must be non-empty"
NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than zero"
IMMUTABLE = "field is immutable"


def regex_error(text: str, pattern: str, *examples: str) -> str:
    """Builds upstream's sentence about a pattern, with its odd comma before `or`."""
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


def too_long(length: int) -> str:
    return f"must be no more than {length} bytes"


def out_of_range(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """A pattern, compiled at its first use; this cache is quicker than that of the re module."""
    return re.compile(text)


def _checked(value: str, length: int, pattern: str, text: str, *examples: str) -> list[str]:
    errors = [too_long(length)] if len(value.encode()) > length else []
    if not _pattern(pattern).fullmatch(value):
        errors.append(regex_error(text, pattern, *examples))
    return errors


_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-',"
    " and must start and end with an alphanumeric character"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character"
)
_UNDERSCORE_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' "
    "or '.',"
    " and must start and end with an alphanumeric character"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-',"
    " start with an alphabetic character, and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which "
    "must consist of"
    " lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_ENDS_TEXT = "must start and end with an alphanumeric character"
_QUALIFIED_TEXT = f"must consist of alphanumeric characters, '-', '_' or '.', and {_ENDS_TEXT}"
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character"
)
_CONFIG_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_HEADER_TEXT = "a valid HTTP header must consist of alphanumeric characters or '-'"
_PERCENT_TEXT = "a valid percent string must be a numeric string followed by an ending '%'"


def dns1123_label(value: str) -> list[str]:
    errors = [too_long(LABEL_LENGTH)] if len(value.encode()) > LABEL_LENGTH else []
    if not _pattern(_LABEL).fullmatch(value):
        if _pattern(_SUBDOMAIN).fullmatch(value):
            errors.append("must not contain dots")
        else:
            errors.append(regex_error(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return errors


def dns1123_subdomain(value: str) -> list[str]:
    return _checked(value, SUBDOMAIN_LENGTH, _SUBDOMAIN, _SUBDOMAIN_TEXT, "example.com")


def dns1123_subdomain_with_underscore(value: str) -> list[str]:
    return _checked(value, SUBDOMAIN_LENGTH, _SUBDOMAIN_UNDERSCORE, _UNDERSCORE_TEXT, "example.com")


def dns1035_label(value: str) -> list[str]:
    return _checked(value, LABEL_LENGTH, _LABEL_1035, _LABEL_1035_TEXT, "my-name", "abc-123")


def wildcard_subdomain(value: str) -> list[str]:
    return _checked(value, SUBDOMAIN_LENGTH, _WILDCARD, _WILDCARD_TEXT, "*.example.com")


def qualified_name(value: str) -> list[str]:
    """A label key: `name` or `dns.prefix/name`."""
    parts = value.split("/")
    if len(parts) > 2:
        text = "a valid label key " + _QUALIFIED_TEXT
        examples = ("MyName", "my.name", "123-abc")
        ending = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [regex_error(text, _QUALIFIED, *examples) + ending]
    errors = []
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            errors.append("prefix part " + EMPTY)
        else:
            errors += ["prefix part " + text for text in dns1123_subdomain(prefix)]
    name = parts[-1]
    if not name:
        errors.append("name part " + EMPTY)
    elif len(name.encode()) > LABEL_LENGTH:
        errors.append("name part " + too_long(LABEL_LENGTH))
    if not _pattern(_QUALIFIED).fullmatch(name):
        errors.append(
            "name part " + regex_error(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc"),
        )
    return errors


def label_value(value: str) -> list[str]:
    return _checked(
        value,
        LABEL_LENGTH,
        _LABEL_VALUE,
        _LABEL_VALUE_TEXT,
        "MyValue",
        "my_value",
        "12345",
    )


def config_map_key(value: str) -> list[str]:
    errors = _checked(
        value,
        SUBDOMAIN_LENGTH,
        _CONFIG_KEY,
        _CONFIG_KEY_TEXT,
        "key.name",
        "KEY_NAME",
        "key-name",
    )
    return errors + _directory_prefix(value)


def _directory_prefix(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []


def environment_name(value: str) -> list[str]:
    """Any printable ASCII characters except `=` (RelaxedEnvironmentVariableValidation, GA in
    1.34).
    """
    if not value:
        return ["environment variable name " + EMPTY]
    if all(" " <= char <= "~" and char != "=" for char in value):
        return []
    text = "a valid environment variable name must consist only of printable ASCII characters"
    return [f"{text} other than '='"]


def http_header_name(value: str) -> list[str]:
    if _pattern(_HEADER).fullmatch(value):
        return []
    return [regex_error(_HEADER_TEXT, _HEADER, "X-Header-Name")]


def percent(value: str) -> list[str]:
    if _pattern(_PERCENT).fullmatch(value):
        return []
    return [regex_error(_PERCENT_TEXT, _PERCENT, "1%", "93%")]


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [out_of_range(1, 65535)]


def port_name(value: str) -> list[str]:
    """An IANA service name (RFC 6335) in lower case."""
    errors = [too_long(15)] if len(value.encode()) > 15 else []
    if not _pattern("[-a-z0-9]+").fullmatch(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _pattern("[a-z]").search(value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and "-" in (value[0], value[-1]):
        errors.append("must not begin or end with a hyphen")
    return errors


def path_segment(value: str) -> list[str]:
    """The name of an RBAC object: anything that can be a segment of a URL path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{part}'" for part in "/%" if part in value]


def masked_trailing_dash(value: str) -> str:
    """Replaces the final dash of a generateName prefix, because more characters will follow it."""
    return value[:-2] + "a" if len(value) > 1 and value.endswith("-") else value
