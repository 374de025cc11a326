from decimal import Decimal

import pytest

from kubewire.components.kubeapi.quantity import milli_value, parse_quantity, value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"), ("1", "1"), ("500m", "0.5"), ("2Gi", str(2 * 2**30)), ("64Mi", str(64 * 2**20)),
        ("1k", "1000"), ("1.5Gi", str(3 * 2**29)), ("1e3", "1000"), ("12E", str(12 * 10**18)),
        ("1E3", "1000"), ("100u", "0.0001"), ("-1", "-1"), (".5", "0.5"), ("5.", "5"), (3, "3"),
        ("1Ei", str(2**60)), ("0.1n", "1E-9"),
    ],
)  # fmt: skip
def test_quantities_have_their_exact_value(text, expected):
    assert parse_quantity(text) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GiB", "1.2.3", "0x10", "1K", "m5", "1Ki2"])
def test_what_is_no_quantity_is_refused_with_upstreams_text(text):
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "units", "millis"), [("1500m", 2, 1500), ("0.0001", 1, 1), ("2", 2, 2000), ("1Ki", 1024, 1024000)]
)
def test_units_and_thousandths_round_up(text, units, millis):
    assert value(text) == units
    assert milli_value(text) == millis
