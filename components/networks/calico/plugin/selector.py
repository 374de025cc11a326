"""Calico's selector language as a pool's nodeSelector uses it: all(), has(), ==, !=, in, not in,
joined by &&.

(https://docs.tigera.io/calico/latest/reference/resources/ippool#node-selector)
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = r"([A-Za-z0-9_./-]+)"
_STRING = r"(?:'([^']*)'|\"([^\"]*)\")"
_COMPARED = re.compile(rf"{_KEY}\s*(==|!=)\s*{_STRING}\Z")
_MEMBER = re.compile(rf"{_KEY}\s+(in|not\s+in)\s*\{{(.*)\}}\Z")
_HAS = re.compile(rf"(!\s*)?has\(\s*{_KEY}\s*\)\Z")


class SelectorError(ValueError):
    """The text is not a selector, or uses a part of the language that is not supported."""


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Raises SelectorError."""
    return all(_matches(term.strip(), labels) for term in selector.split("&&"))


def _matches(term: str, labels: Mapping[str, str]) -> bool:
    if term in ("all()", ""):
        return True
    if found := _HAS.match(term):
        return (found[2] in labels) != bool(found[1])
    if found := _COMPARED.match(term):
        value = found[3] if found[3] is not None else found[4]
        return (labels.get(found[1]) == value) == (found[2] == "==")
    if found := _MEMBER.match(term):
        values = [single or double for single, double in re.findall(_STRING, found[3])]
        return (labels.get(found[1]) in values) == (found[2] == "in")
    raise SelectorError(
        f"invalid selector {term!r}: understood are all(), has(k), k == 'v', k != 'v', k in {{'v'}}, &&",
    )
