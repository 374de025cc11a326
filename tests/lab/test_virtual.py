"""`kubewire vm`: which kernel is taken, what is said when there is none, and the line that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.components.kernel.features import FEATURES, VIRTUAL_TIME
from kubewire.lab.cli import _parse_own, build_parser
from kubewire.lab.commands import virtual
from kubewire.lab.commands.virtual import Needs, choose
from kubewire.lab.commands.vm_runs import VirtualMachines
from kubewire.lab.errors import UsageError
from kubewire.scenarios.engine.loader import load
from kubewire.vm import build, cache
from kubewire.vm.errors import NotBuilt
from kubewire.vm.kernels import KERNELS
from kubewire.vm.kernels.base import Kernel

_ALL = dict.fromkeys(FEATURES, True)


def kernels(monkeypatch: pytest.MonkeyPatch, **features: dict[str, bool] | None) -> None:
    """Pretend that these kernels are built, and have these features."""

    def find(kernel: Kernel) -> cache.Built | None:
        found = features.get(kernel.name.replace("-", "_"))
        return None if found is None else cache.Built("6.1", "/x", 1, "", "", "", 1.0, found)

    monkeypatch.setattr(build, "find", find)


def test_the_lightest_kernel_that_has_what_is_needed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch, uml=_ALL | {"bpf": False}, qemu=_ALL)
    assert choose("auto", Needs(("ip_vs",))).name == "uml"
    assert choose("auto", Needs(("bpf",))).name == "qemu"


def test_a_kernel_that_is_not_built_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch, uml_stock=_ALL)
    assert choose("auto", Needs(("ip_vs",))).name == "uml-stock"


def test_when_none_is_built_the_command_that_builds_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch)
    with pytest.raises(NotBuilt, match="kubewire vm build --kernel uml"):
        choose("auto", Needs(("ip_vs",)))


def test_what_no_kernel_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch, **{kernel.name.replace("-", "_"): _ALL | {"vrf": False} for kernel in KERNELS})
    with pytest.raises(UsageError, match="uml lacks vrf; uml-stock lacks vrf; qemu lacks vrf"):
        choose("auto", Needs(("vrf",)))


def test_only_the_built_uml_kernel_has_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch, uml=_ALL, uml_stock=_ALL, qemu=_ALL)
    assert choose("auto", Needs(virtual_time=True)).name == "uml"
    with pytest.raises(UsageError, match="qemu has no virtual time"):
        choose("qemu", Needs(virtual_time=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.scenario.yaml"
    path.write_text(
        "name: x\ntitle: t\nclock: virtual\nrequires: [ip_vs]\nsteps:\n  - expect: {from: worker-1, ping: worker-2}\n"
    )
    return path


def test_a_scenarios_place_is_a_kernel_and_its_clock(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    kernels(monkeypatch, uml=_ALL)
    (case,) = load(file)
    assert VirtualMachines().place(case) == f"uml, {VIRTUAL_TIME}"
    assert VirtualMachines().advice(case) == f"kubewire vm run -- run {file}"


def test_the_advice_begins_with_the_build_where_that_is_missing(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    kernels(monkeypatch)
    (case,) = load(file)
    assert VirtualMachines().place(case) == ""
    assert VirtualMachines().advice(case) == f"kubewire vm build && kubewire vm run -- run {file}"


def test_time_is_virtual_when_every_scenario_wants_it(file: Path) -> None:
    (case,) = load(file)
    assert virtual.needs_of([case]).virtual_time
    file.write_text(file.read_text().replace("clock: virtual\n", ""))
    assert not virtual.needs_of([case, *load(file)]).virtual_time
    assert not virtual.needs_of([]).virtual_time


@pytest.mark.parametrize(("command", "own"), [(["run", "hairpin"], True), (["doctor"], True), (["ip", "link"], False)])
def test_kubewires_own_commands_are_told_from_others(command: list[str], own: bool) -> None:
    assert (_parse_own(command) is not None) == own


def test_the_kernels_to_choose_from_are_those_there_are() -> None:
    assert ("auto", *(kernel.name for kernel in KERNELS)) == virtual.CHOICES
    parsed = build_parser().parse_args(["vm", "run", "--kernel", "qemu", "--", "true"])
    assert (parsed.kernel, parsed.arguments[-1]) == ("qemu", "true")


def test_a_script_that_is_longer_than_a_path_is_no_path(tmp_path: Path) -> None:
    named = tmp_path / "script"
    named.write_text("")
    script = "cat /etc/hostname; " * 1000
    before = virtual.visible(["sh", "-c", "true"])
    assert virtual.visible(["sh", "-c", script, "a\0/b", str(named)]) == [*before, tmp_path]
