"""Sums of quantities, which keep the form in which the first of them was written
(apimachinery's resource.Quantity, Add and String).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubewire.components.kubeapi.quantity import parse_quantity

_DECIMAL = ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, ""))
_SMALL = ((-3, "m"), (-6, "u"), (-9, "n"))
_BINARY = ((60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki"))


@dataclass(frozen=True)
class Amount:
    """A number, and whether it is written in powers of 1024."""

    value: Decimal = Decimal(0)
    binary: bool = False

    @classmethod
    def of(cls, text: Any) -> Amount:
        """Raises ValueError."""
        return cls(parse_quantity(text), str(text).endswith("i"))

    def __add__(self, other: Amount) -> Amount:
        # A zero has no form of its own.
        form = self if self.value else other
        return Amount(self.value + other.value, form.binary)

    def __sub__(self, other: Amount) -> Amount:
        form = self if self.value else other
        return Amount(self.value - other.value, form.binary)

    def __gt__(self, other: Amount) -> bool:
        return self.value > other.value

    def __str__(self) -> str:
        """The canonical text: the largest unit of which it is a whole number."""
        if self.binary and abs(self.value) >= 1024:
            return _binary_text(self.value)
        for exponent, suffix in (*_DECIMAL, *_SMALL):
            scaled = self.value.scaleb(-exponent)
            if scaled == scaled.to_integral_value() and (scaled or not exponent):
                return f"{int(scaled)}{suffix}"
        return "0"


def _binary_text(value: Decimal) -> str:
    whole = int(value.to_integral_value(rounding="ROUND_UP"))
    for bits, suffix in _BINARY:
        if whole % (1 << bits) == 0:
            return f"{whole >> bits}{suffix}"
    return str(whole)


Amounts = dict[str, Amount]


def parsed(texts: Mapping[str, Any]) -> Amounts:
    """Raises ValueError."""
    return {name: Amount.of(text) for name, text in texts.items()}


def shown(amounts: Mapping[str, Amount]) -> dict[str, str]:
    return {name: str(amount) for name, amount in sorted(amounts.items())}


def added(one: Mapping[str, Amount], other: Mapping[str, Amount]) -> Amounts:
    result = dict(one)
    for name, amount in other.items():
        result[name] = result[name] + amount if name in result else amount
    return result
