"""The example of lab/README.md runs, and the README knows every command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from kubewire.lab.cli import build_parser
from kubewire.lab.state import find

README = Path(__file__).parents[2] / "lab/README.md"


@pytest.mark.lab
def test_the_example_runs_as_written(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(short_path))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    exec(compile(code, str(README), "exec"), {})
    assert not find("readme").path.exists()


def test_every_command_is_in_the_table() -> None:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert [name for name in commands.choices if not re.search(rf"^\|.*`{name}\b", README.read_text(), re.M)] == []
