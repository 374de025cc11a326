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


def canonical_quantity(text: str | int | float) -> str:
    """The form in which upstream writes a quantity, as 100m for 0.1 and 1Gi for 1024Mi.

    The mantissa is a whole number as small as the suffixes allow. A binary suffix stays binary
    unless that would lose a fraction or the value is below 1024. Upstream keeps a text that its
    fast path takes for canonical, so 1.123 stays. Raises ValueError like parse_quantity.
    """
    if isinstance(text, str) and len(text) > _LONGEST_CACHED:
        return _canonical(text)
    return _canonical_cached(text)


@lru_cache(maxsize=4096)
def _canonical_cached(text: str | int | float) -> str:
    return _canonical(str(text))


#: The digits of a decimal number that upstream's fast path reads (maxInt64Factors).
_FAST_DIGITS = 18
_INT64 = 2**63


def _counts_as_canonical(number: str, suffix: str) -> bool:
    """The test of upstream's ParseQuantity, which lets some texts pass that are not canonical."""
    whole, _, fraction = number.lstrip("+-").partition(".")
    digits = (whole.lstrip("0") or "0") + fraction
    if suffix in _BINARY:
        bits = _BINARY[suffix]
        fits = len(digits) <= 14 - bits * 3 // 10 and int(digits) << bits < _INT64
        return not fraction and fits and int(digits) & 7 != 0
    scale = _exponent(suffix) - len(fraction)
    if len(digits) > _FAST_DIGITS or scale < -9:
        return False
    return scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"


def _exponent(suffix: str) -> int:
    """The power of ten of a decimal suffix."""
    if suffix in _DECIMAL:
        return _DECIMAL[suffix]
    # More digits mean the largest value, or a nano-unit, and no text to keep.
    return int(suffix[1:]) if len(suffix) < 8 else 1


_DECIMAL_NAMES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_NAMES = {bits // 10: suffix for suffix, bits in _BINARY.items()}


def _canonical(text: str) -> str:
    number = parse_quantity(text)
    if not number:
        return "0"
    suffix = text.lstrip("+-0123456789.")
    if _counts_as_canonical(text.removesuffix(suffix), suffix):
        return text
    if suffix in _BINARY and abs(number) >= 1024 and number == number.to_integral_value():
        mantissa = int(number)
        power = 0
        while mantissa % 1024 == 0 and power < len(_BINARY_NAMES):
            mantissa //= 1024
            power += 1
        return f"{mantissa}{_BINARY_NAMES.get(power, '')}"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    mantissa = int("".join(map(str, digits))) * 10 ** (exponent % 3)
    exponent -= exponent % 3
    text = f"{'-' if sign else ''}{mantissa}"
    if suffix[:1] in ("e", "E") and suffix[1:]:
        return f"{text}e{exponent}" if exponent else text
    # Upstream has no suffix beyond E either, and writes the digits out.
    over = max(exponent - 18, 0)
    return f"{text}{'0' * over}{_DECIMAL_NAMES[exponent - over]}"
