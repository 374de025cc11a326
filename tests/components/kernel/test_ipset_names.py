"""A set that is replaced has a second set for a moment, whose name must fit as well."""

from __future__ import annotations

from kubewire.components.kernel import ipset


def test_the_second_set_of_a_long_name_fits() -> None:
    name = "weave-;rGqyMIl1HN^cfDki~Z$3]6!N"
    lines = ipset.replacement(name, "hash:ip", ["10.0.0.1"])
    assert all(len(word) <= 31 for line in lines for word in line.split() if word.startswith("weave-"))
    assert f"swap {name} {name[:27]}-tmp" in lines
