"""A pytest plugin: collects scenario files as tests, and provides labs for tests in Python.

To run scenario files, each case as a test:

    pytest -p kubewire.scenarios.engine.pytest_plugin scenarios/catalogue

To use a lab in a test (without the mark, it is the default lab):

    @pytest.mark.lab_spec({"cni": {"backend": "host-gw"}})
    def test_something(lab):
        assert lab.exec("worker-1", ["ip", "route"]).returncode == 0

Tests that need equal labs share one, one after another. It ends when a test needs another lab, or
with the session. Because scenarios do not import the lab, a factory must be named that starts labs:
by --lab-factory or the ini option lab_factory ("package.module:name", called without arguments), or
by the entry point group "kubewire.lab_factory".
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from kubewire.scenarios.engine.events.options import RunOptions, everything_there
from kubewire.scenarios.engine.events.results import CaseResult
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.handle import LabFactory, LabHandle
from kubewire.scenarios.engine.loader import SUFFIX, load
from kubewire.scenarios.engine.render.junit import evidence_lines
from kubewire.scenarios.engine.run.runner import Run

ENTRY_POINTS = "kubewire.lab_factory"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kubewire")
    factory = "factory that starts labs, as package.module:name"
    group.addoption("--lab-factory", default="", help=factory)
    group.addoption(
        "--scenario-results",
        default="results/pytest",
        help="folder for the captures of scenarios",
    )
    parser.addini("lab_factory", factory, default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "lab_spec(mapping): lab file of the lab in the `lab` fixture",
    )
    config.stash[POOL] = LabPool(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if pool := config.stash.get(POOL, None):
        pool.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name.endswith(SUFFIX):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


@dataclass
class LabPool:
    """Keeps at most one lab, for as long as the tests need an equal one."""

    config: pytest.Config
    stack: ExitStack = field(default_factory=ExitStack)
    lab: LabHandle | None = None
    spec: LabSpec | None = None
    started: int = 0

    def get(self, spec: LabSpec) -> LabHandle:
        """A lab with this lab file. Raises what the factory raises."""
        if self.lab is None or self.spec != spec:
            self.close()
            self.started += 1
            factory = find_factory(self.config)
            name = f"pytest-{self._worker()}{self.started}"
            self.lab = self.stack.enter_context(factory(spec, name))
            self.spec = spec
        return self.lab

    def _worker(self) -> str:
        workerinput: dict[str, Any] = getattr(self.config, "workerinput", {})
        return f"{workerinput['workerid']}-" if workerinput else ""

    @contextmanager
    def borrow(self, spec: LabSpec, name: str) -> Iterator[LabHandle]:
        """A LabFactory that leaves the lab running for later tests."""
        yield self.get(spec)

    @contextmanager
    def alone(self, spec: LabSpec, name: str) -> Iterator[LabHandle]:
        """A LabFactory of labs that no other test uses."""
        self.close()
        try:
            yield self.get(spec)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the lab, if there is one."""
        self.lab = self.spec = None
        self.stack.close()


POOL = pytest.StashKey[LabPool]()


def find_factory(config: pytest.Config) -> LabFactory:
    """The factory that the option, the ini file or an entry point names. Raises
    pytest.UsageError."""
    text = config.getoption("--lab-factory") or config.getini("lab_factory")
    if not text:
        found = list(entry_points(group=ENTRY_POINTS))
        if not found:
            raise pytest.UsageError(
                "no factory for labs is known; give --lab-factory package.module:name",
            )
        text = found[0].value
    module, _, name = text.partition(":")
    try:
        made: LabFactory = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"--lab-factory {text}: {error}") from error
    return made


class ScenarioFile(pytest.File):
    """A *.scenario.yaml file."""

    def collect(self) -> Iterator[pytest.Item]:
        try:
            for case in load(self.path):
                yield ScenarioItem.from_parent(self, name=case.id, case=case)
        except SpecError as error:
            raise self.CollectError(str(error)) from error


class ScenarioFailed(Exception):
    """A case did not pass."""

    def __init__(self, result: CaseResult) -> None:
        super().__init__(result.problem)
        self.result = result


class ScenarioItem(pytest.Item):
    """One case."""

    def __init__(self, *, case: Case, **others: Any) -> None:
        super().__init__(**others)
        self.case = case
        self.add_marker("lab")

    def runtest(self) -> None:
        missing = getattr(find_factory(self.config), "missing", everything_there)
        options = RunOptions(
            results=Path(self.config.getoption("--scenario-results")),
            missing=missing,
        )
        pool = self.config.stash[POOL]
        factory = pool.alone if self.case.scenario.isolated else pool.borrow
        result = Run([self.case], factory, options, []).run()
        if result.interrupted:
            raise KeyboardInterrupt
        one = result.cases[0]
        if one.status == "skipped":
            pytest.skip(one.reason)
        self.add_report_section("call", "evidence", "\n".join(evidence_lines(one)))
        if one.status != "passed":
            raise ScenarioFailed(one)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, ScenarioFailed):
            result = excinfo.value.result
            return "\n".join(
                [
                    f"{result.case.id}: {result.problem}",
                    "",
                    *evidence_lines(result, failed_only=True),
                ]
            )
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.case.scenario.title} [{self.case.id}]"


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> LabHandle:
    """A running lab, with the lab file in @pytest.mark.lab_spec."""
    marker = request.node.get_closest_marker("lab_spec")
    spec = LabSpec.parse(marker.args[0] if marker else {}, f"{request.node.nodeid} lab_spec")
    return request.config.stash[POOL].get(spec)
