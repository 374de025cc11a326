"""Resource quantities: 500m, 2Gi, 1e3 (apimachinery's resource.Quantity,
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/)."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, ROUND_UP, Context, Decimal
from functools import lru_cache

_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]+)",
)
_ERROR = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = Decimal(10) ** -9


#: Longer texts are not cached: the cache could grow without bound.
_LONGEST_CACHED = 64
#: Larger values count as this one.
_MOST = Decimal(10**27)
_EXACT = Context(prec=28, Emax=MAX_EMAX, Emin=MIN_EMIN)
#: Beyond these exponents a value is the largest one, or rounds to one nano-unit.
_MOST_EXPONENT = 10_000_000


def parse_quantity(text: str | int | float) -> Decimal:
    """The exact value. Fractions of a nano-unit are rounded away from zero, as upstream does;
    values above 10^27 become 10^27.

    Raises ValueError with upstream's text if the form is invalid.
    """
    if isinstance(text, str) and len(text) > _LONGEST_CACHED:
        return _parse(text)
    return _cached(text)


@lru_cache(maxsize=4096)
def _cached(text: str | int | float) -> Decimal:
    return _parse(str(text))


def _parse(text: str) -> Decimal:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(_ERROR)
    value = _EXACT.multiply(Decimal(match["number"]), _factor(match["suffix"]))
    # abs() would round by the default context, which has smaller exponents.
    size = value.copy_abs()
    if size > _MOST:
        return _MOST.copy_sign(value)
    rounded = value.quantize(_NANO, rounding=ROUND_UP, context=_EXACT) if size < 10**15 else value
    return rounded.normalize() if rounded else Decimal(0)


def _factor(suffix: str) -> Decimal:
    if suffix in _BINARY:
        return Decimal(2 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return Decimal(10) ** _DECIMAL[suffix]
    digits = suffix[1:].lstrip("+-").lstrip("0") or "0"
    exponent = min(int(digits[:10]) if len(digits) <= 10 else _MOST_EXPONENT, _MOST_EXPONENT)
    return _EXACT.scaleb(Decimal(1), -exponent if suffix[1] == "-" else exponent)


def value(text: str | int | float) -> int:
    """Whole units, rounded up (bytes of memory, number of pods)."""
    return _round_up(parse_quantity(text))


def milli_value(text: str | int | float) -> int:
    """Thousandths, rounded up (millicores of cpu)."""
    return _round_up(parse_quantity(text) * 1000)


def _round_up(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_UP))
