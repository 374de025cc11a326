"""IPv6 and IP-in-IP where the kernel cannot: said before anything is started."""

from __future__ import annotations

import pytest

from kubewire.lab.errors import UsageError
from kubewire.lab.needs import kernel_needs
from kubewire.scenarios.engine.file.spec import LabSpec


@pytest.mark.parametrize("family", ["ipv6", "dual", "dual-ipv6-first"])
def test_a_kernel_without_ipv6_is_named_and_what_to_look_at(family: str) -> None:
    spec = LabSpec.parse({"network": {"ipFamily": family}})
    with pytest.raises(
        UsageError, match=rf"^network\.ipFamily: {family} cannot be used here: this kernel has no ipv6; see"
    ):
        kernel_needs.ensure(spec, missing=lambda feature: f"this kernel has no {feature}")
    kernel_needs.ensure(spec, missing=lambda feature: "")


def test_ipv4_labs_ask_the_kernel_nothing() -> None:
    kernel_needs.ensure(LabSpec(), missing=lambda feature: pytest.fail(f"asked for {feature}"))


def test_ip_in_ip_is_asked_for() -> None:
    spec = LabSpec.parse({"cni": {"plugin": "calico", "backend": "ipip"}})
    with pytest.raises(UsageError, match=r"^cni\.backend: ipip cannot be used here: no ipip; see"):
        kernel_needs.ensure(spec, missing=lambda feature: f"no {feature}")
