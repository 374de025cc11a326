"""What the engine is told of a container that ends between being found and being used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubewire.components.runtime.api import StartError, UnknownProcess
from kubewire.lab.handle import RunningLab
from kubewire.lab.state import LabRecord, StateDirectory


def lab_whose_runtime(raises: Exception, monkeypatch: pytest.MonkeyPatch) -> RunningLab:
    def run(*_: Any, **__: Any) -> Any:
        raise raises

    monkeypatch.setattr(RunningLab, "_runtime", lambda self: SimpleNamespace(run=run))
    monkeypatch.setattr(RunningLab, "_container", lambda self, target: SimpleNamespace(id="c1"))
    return RunningLab(StateDirectory(Path("/nowhere/demo")), LabRecord("demo", 1, 1, 0, {}))


@pytest.mark.parametrize(
    "error",
    [StartError("cannot exec in a stopped container", "container"), UnknownProcess("container 'c1' does not exist")],
    ids=["ended", "removed"],
)
def test_a_container_that_has_ended_is_no_target_any_more(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_whose_runtime(error, monkeypatch)
    with pytest.raises(LookupError, match=r"^the container of pod:default/web (has ended|is gone)$"):
        lab.exec("pod:default/web", ["true"])


def test_a_command_that_does_not_exist_stays_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_whose_runtime(StartError("executable file not found in $PATH", "exec", 2), monkeypatch)
    with pytest.raises(StartError):
        lab.exec("pod:default/web", ["true"])
