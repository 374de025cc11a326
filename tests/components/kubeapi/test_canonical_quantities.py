"""Quantities in the form in which upstream writes them (TestQuantityString of apimachinery has the same)."""

from __future__ import annotations

import pytest

from kubewire.components.kubeapi.quantity import canonical_quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("0.1", "100m", id="a fraction"),
        pytest.param(0.1, "100m", id="a number of JSON"),
        pytest.param(1, "1", id="a whole number"),
        pytest.param("1500m", "1500m", id="no whole number"),
        pytest.param("2000m", "2", id="a whole number in milli-units"),
        pytest.param("1000", "1k", id="a thousand"),
        pytest.param("100000k", "100M", id="many thousands"),
        pytest.param("1024Mi", "1Gi", id="a binary suffix grows"),
        pytest.param("1000Mi", "1000Mi", id="a binary suffix that cannot"),
        pytest.param("0.5Gi", "512Mi", id="a binary fraction"),
        pytest.param("0.1Ki", "102400m", id="a binary fraction below 1024"),
        pytest.param("1.5Ki", "1536", id="a binary suffix that goes"),
        pytest.param("2000e3", "2e6", id="an exponent"),
        pytest.param("1.123", "1.123", id="what upstream takes for canonical"),
        pytest.param("-0.1", "-100m", id="a negative one"),
        pytest.param("0Mi", "0", id="zero"),
        pytest.param("0.0000000001", "1n", id="less than a nano-unit"),
        pytest.param("4294967296", "4294967296", id="a binary number without suffix"),
    ],
)
def test_a_quantity_has_one_form(text: str | float, canonical: str) -> None:
    assert canonical_quantity(text) == canonical


def test_another_text_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        canonical_quantity("lots")
