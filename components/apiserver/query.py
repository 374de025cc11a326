"""Parses numbers of a request's query as Go's strconv.ParseInt does."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kubewire.components.apiserver import status

_INTEGER = re.compile(r"[-+]?[0-9]+")
_MOST_DIGITS = 100


def integer(query: Mapping[str, str], name: str) -> int:
    """A number of the query, or 0 when it is absent; raises 400."""
    text = query.get(name, "")
    if not text:
        return 0
    if not _INTEGER.fullmatch(text):
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    # int() refuses more than 4300 digits.
    if len(text) > _MOST_DIGITS or not -(2**63) <= int(text) < 2**63:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)
