"""The pytest plugin, as its users run it: another pytest with a lab factory that only records."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FACTORY = """
import contextlib
from pathlib import Path
from kubewire.scenarios.engine.handle import Completed, Host

LOG = Path(__file__).parent / "labs.txt"

class Lab:
    name = "fake"
    kubeconfig = state_dir = Path("/nonexistent")
    def __init__(self, spec):
        self.spec = spec
    def hosts(self):
        return [Host("worker-1", "worker", "172.18.0.3")]
    def exec(self, target, argv, **_):
        return Completed(0, self.spec.cni.backend.encode(), b"")

class Factory:
    def missing(self, feature):
        return "no module vxlan" if feature == "vxlan" else ""

    @contextlib.contextmanager
    def __call__(self, spec, name):
        LOG.open("a").write(f"up {spec.cni.backend}\\n")
        yield Lab(spec)
        LOG.open("a").write(f"down {spec.cni.backend}\\n")
"""


def pytest_run(folder: Path, *arguments: str) -> str:
    (folder / "fake_factory.py").write_text(FACTORY)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "kubewire.scenarios.engine.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *arguments],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}/src:{folder}", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_tests_with_an_equal_lab_share_it(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_one(lab): assert lab.exec('worker-1', []).text == 'vxlan'\n"
        "def test_two(lab): assert lab.hosts()[0].is_node\n"
        "@pytest.mark.lab_spec({'cni': {'backend': 'host-gw'}})\n"
        "def test_three(lab): assert lab.exec('worker-1', []).text == 'host-gw'\n"
    )
    said = pytest_run(tmp_path, "--lab-factory", "fake_factory:Factory", "test_x.py")
    assert "3 passed" in said
    log = (tmp_path / "labs.txt").read_text().splitlines()
    assert log == ["up vxlan", "down vxlan", "up host-gw", "down host-gw"]


def test_scenario_files_are_collected_case_by_case(tmp_path):
    (tmp_path / "x.scenario.yaml").write_text(
        "name: x\ntitle: t\nsteps: [{note: hi}]\nvariants: {broken: {}, fixed: {}}\n"
    )
    said = pytest_run(tmp_path, "--collect-only", "-q", "x.scenario.yaml")
    assert "x[broken]" in said and "x[fixed]" in said


def test_a_wrong_file_is_a_collection_error_with_its_line(tmp_path):
    (tmp_path / "x.scenario.yaml").write_text("name: x\ntitle: t\nstepz: []\n")
    assert "x.scenario.yaml:3: stepz: unknown key (did you mean steps?)" in pytest_run(tmp_path, "x.scenario.yaml")


def test_a_lab_that_cannot_be_reached_fails_the_case_with_the_reason(tmp_path):
    (tmp_path / "x.scenario.yaml").write_text("name: x\ntitle: t\nsteps: [{note: hi}]\n")
    said = pytest_run(tmp_path, "--lab-factory", "fake_factory:Factory", "x.scenario.yaml")
    assert "1 failed" in said and "/nonexistent" in said


def test_without_a_factory_it_says_what_to_give(tmp_path):
    (tmp_path / "test_x.py").write_text("def test_one(lab): pass\n")
    assert "give --lab-factory package.module:name" in pytest_run(tmp_path, "test_x.py")


def test_a_case_that_requires_what_labs_cannot_do_is_skipped_with_the_reason(tmp_path):
    (tmp_path / "x.scenario.yaml").write_text("name: x\ntitle: t\nrequires: [veth, vxlan]\nsteps: [{note: hi}]\n")
    said = pytest_run(tmp_path, "-rs", "--lab-factory", "fake_factory:Factory", "x.scenario.yaml")
    assert "1 skipped" in said and "this machine cannot run it: no module vxlan" in said
    assert not (tmp_path / "labs.txt").exists()


def test_an_isolated_case_has_a_lab_to_itself(tmp_path):
    for name, isolated in (("a", "false"), ("b", "true"), ("c", "false")):
        file = tmp_path / f"{name}.scenario.yaml"
        file.write_text(f"name: {name}\ntitle: t\nisolated: {isolated}\nsteps: [{{note: hi}}]\n")
    pytest_run(tmp_path, "--lab-factory", "fake_factory:Factory", ".")
    assert (tmp_path / "labs.txt").read_text().splitlines() == ["up vxlan", "down vxlan"] * 3
