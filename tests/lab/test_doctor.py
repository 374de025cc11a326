"""What a machine can do, and the names under which scenarios may ask for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kubewire.components.kernel import features as kernel_features
from kubewire.lab.needs import doctor
from kubewire.scenarios.engine import file as scenario_files
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.loader import load

_SCENARIO = """\
name: needs-something
title: A scenario that needs something of the kernel
requires: [{feature}]
steps:
  - expect: {{ping: router, from: worker-1}}
"""


def test_a_scenario_may_require_exactly_what_doctor_can_try() -> None:
    schema = json.loads(Path(scenario_files.__path__[0], "scenario.schema.json").read_text())
    assert schema["properties"]["requires"]["items"]["enum"] == list(kernel_features.FEATURES)


def test_a_misspelt_feature_is_an_error_that_names_file_line_and_the_right_one(tmp_path: Path) -> None:
    file = tmp_path / "needs.scenario.yaml"
    file.write_text(_SCENARIO.format(feature="vxlam"))
    with pytest.raises(
        SpecError, match=r"needs\.scenario\.yaml:3: requires\[0\]: \"vxlam\" is not known \(did you mean vxlan\?\)"
    ):
        load(file)


def test_a_known_feature_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "needs.scenario.yaml"
    file.write_text(_SCENARIO.format(feature="vxlan"))
    assert [case.scenario.requires for case in load(file)] == [("vxlan",)]


@pytest.mark.parametrize(
    ("witness", "line", "code"),
    [
        ("conntrack", "  ✗ conntrack                   missing: apt install conntrack (needed)", 1),
        (
            "kubectl",
            "  - kubernetes-client           missing: apt install kubernetes-client (without it: no kubewire kubectl)",
            0,
        ),
    ],
    ids=["needed", "of use"],
)
def test_a_missing_package_is_said_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], witness: str, line: str, code: int
) -> None:
    which = shutil.which
    monkeypatch.setattr(doctor, "_kernel", list)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == witness else which(name))
    assert doctor.show() == code
    assert line in capsys.readouterr().out.splitlines()


def test_what_is_no_feature_is_never_just_missing() -> None:
    with pytest.raises(LookupError, match="there are veth, bridge"):
        doctor.missing_feature("vxlam")


@pytest.mark.parametrize(
    ("command", "missing"), [("true", ""), ("false", "this kernel has no tried")], ids=["works", "fails"]
)
def test_a_feature_is_missing_when_its_command_fails(
    monkeypatch: pytest.MonkeyPatch, command: str, missing: str
) -> None:
    doctor.missing_feature.cache_clear()
    monkeypatch.setitem(kernel_features.FEATURES, "tried", kernel_features.Feature(command))
    try:
        assert doctor.missing_feature("tried") == missing
    finally:
        doctor.missing_feature.cache_clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user")
def test_bpf_is_missing_for_whoever_needs_a_user_namespace() -> None:
    """bpf(2) asks for CAP_BPF in the machine's own user namespace; doctor's list must not promise it to others."""
    code = "from kubewire.lab.needs.doctor import missing_feature as m; print([f for f in ('veth', 'bpf') if m(f)])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(doctor.__file__).parent.parent,
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['bpf']\n", done.stderr


def test_a_try_that_breaks_in_a_way_nobody_thought_of_does_not_go_on_as_a_second_caller() -> None:
    caller = os.getpid()

    def broken() -> None:
        raise ValueError

    works = kernel_features.in_child(broken)
    assert os.getpid() == caller
    assert not works
