"""Labs for tests: one per worker process, brought up when the first test asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.lab.handle import LabStarter, RunningLab
from kubewire.lab.state import StateDirectory
from kubewire.scenarios.engine.file.spec import LabSpec


@pytest.fixture
def short_path() -> Iterator[Path]:
    """tmp_path is too long for the unix sockets of a state directory below it."""
    folder = Path(tempfile.mkdtemp(prefix="kw-"))
    yield folder
    # A test that failed may have left a lab up; without its state directory nobody would find it again.
    for record in folder.rglob("lab.json"):
        left = StateDirectory(record.parent).record()
        if left is not None and left.init_pid != os.getpid():  # some tests stand in for a lab themselves
            left.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running_lab() -> Iterator[RunningLab]:
    """Control plane and two workers, with cluster DNS."""
    base = Path(tempfile.mkdtemp(prefix="kw-"))
    before = os.environ.get("KUBEWIRE_STATE_DIR")
    os.environ["KUBEWIRE_STATE_DIR"] = str(base)
    try:
        with LabStarter()(LabSpec.parse({"topology": {"workers": 2}}), "tests") as lab:
            yield lab
    finally:
        if before is None:
            del os.environ["KUBEWIRE_STATE_DIR"]
        else:
            os.environ["KUBEWIRE_STATE_DIR"] = before
        shutil.rmtree(base, ignore_errors=True)
