"""IPv6 where the kernel cannot: said before anything is started."""

from __future__ import annotations

import pytest

from lab import ipv6
from lab.errors import UsageError
from scenarios.engine.spec import LabSpec


@pytest.mark.parametrize("family", ["ipv6", "dual", "dual-ipv6-first"])
def test_a_kernel_without_ipv6_is_named_and_what_to_look_at(family: str) -> None:
    spec = LabSpec.parse({"network": {"ipFamily": family}})
    with pytest.raises(
        UsageError, match=rf"^network\.ipFamily: {family} cannot be used here: this kernel has no ipv6; see"
    ):
        ipv6.ensure(spec, missing=lambda feature: f"this kernel has no {feature}")
    ipv6.ensure(spec, missing=lambda feature: "")


def test_ipv4_labs_ask_the_kernel_nothing() -> None:
    ipv6.ensure(LabSpec(), missing=lambda feature: pytest.fail(f"asked for {feature}"))
