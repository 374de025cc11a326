"""Resource quantities: 500m, 2Gi, 1e3 (apimachinery's resource.Quantity,
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/)."""

from __future__ import annotations

import re
from decimal import ROUND_UP, Decimal
from functools import lru_cache

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]+)"
)
_ERROR = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = Decimal(10) ** -9


@lru_cache(maxsize=4096)
def parse_quantity(text: str | int | float) -> Decimal:
    """The exact value; anything finer than a nano-unit is rounded away from zero, as upstream does.

    Raises ValueError with upstream's text when the form is wrong.
    """
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise ValueError(_ERROR)
    value = Decimal(match["number"]) * _factor(match["suffix"])
    rounded = value.quantize(_NANO, rounding=ROUND_UP) if abs(value) < 10**15 else value
    return rounded.normalize() if rounded else Decimal(0)


def _factor(suffix: str) -> Decimal:
    if suffix in _BINARY:
        return Decimal(2 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return Decimal(10) ** _DECIMAL[suffix]
    return Decimal(10) ** int(suffix[1:])


@lru_cache(maxsize=4096)
def value(text: str | int | float) -> int:
    """Whole units, rounded up (bytes of memory, number of pods)."""
    return _round_up(parse_quantity(text))


@lru_cache(maxsize=4096)
def milli_value(text: str | int | float) -> int:
    """Thousandths, rounded up (millicores of cpu)."""
    return _round_up(parse_quantity(text) * 1000)


def _round_up(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_UP))
