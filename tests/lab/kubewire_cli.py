"""Run the kubewire command line as a user does, with a state directory of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class Cli:
    """kubewire with its own state and temporary directory below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.environment = os.environ | {"KUBEWIRE_STATE_DIR": str(self.state), "TMPDIR": str(self.temporary)}
        self.environment["PYTHONPATH"] = str(ROOT / "src")

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "kubewire.lab", *arguments]

    def run(self, *arguments: str, timeout: float = 120.0, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments), env=self.environment, capture_output=True, text=True, timeout=timeout, **options
        )

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def record(self, name: str) -> dict[str, Any] | None:
        """lab.json of a lab, as soon as its sandbox has a first process."""
        try:
            record: dict[str, Any] = json.loads((self.state / name / "lab.json").read_text())
        except (OSError, json.JSONDecodeError):
            return None
        return record if record["init_pid"] else None


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
