"""Mode ipvs where the kernel cannot: said before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.lab.errors import UsageError
from kubewire.lab.needs import ip_vs, kernel_needs
from kubewire.scenarios.engine.file.spec import LabSpec

IPVS = LabSpec.parse({"kubeProxy": {"mode": "ipvs"}})


def test_a_lab_file_may_ask_for_the_mode():
    assert IPVS.kubeProxy.mode == "ipvs"
    assert "kube-proxy ipvs" in IPVS.label()


def test_a_kernel_without_ip_vs_is_named_and_what_to_look_at():
    lacks = {"ip_vs": "this kernel has no ip_vs"}
    with pytest.raises(UsageError, match=r"^kubeProxy\.mode: ipvs cannot be used here: this kernel has no ip_vs; see"):
        kernel_needs.ensure(IPVS, missing=lambda feature: lacks.get(feature, ""))


def test_other_modes_ask_the_kernel_nothing():
    kernel_needs.ensure(LabSpec(), missing=lambda feature: pytest.fail(f"asked for {feature}"))


def test_a_module_that_is_loaded_is_not_loaded_again(tmp_path: Path):
    (tmp_path / "ip_vs").touch()
    ip_vs.ensure(IPVS, tmp_path / "ip_vs", load=lambda: pytest.fail("loaded"))
