"""The README's example does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.components.apiserver.running import CHECKOUT, RunningApiServer

README = (CHECKOUT / "components/apiserver/README.md").read_text()


def steps() -> list[tuple[str, str]]:
    """Commands with the output written below them."""
    block = re.search(r"```console\n(.*?)```", README, re.S)
    assert block is not None
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block[1], re.M)
    assert len(found) >= 3
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_example_runs_as_written(server: RunningApiServer, tmp_path: Path) -> None:
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig), "KUBECACHEDIR": str(tmp_path)}
    for command, expected in steps():
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False, env=environment
        )
        assert done.stdout.strip() == expected.strip(), done.stderr


@pytest.mark.parametrize("section", ["Where it sits", "Flags", "Example", "Differences from upstream", "Links"])
def test_the_readme_has_its_sections(section: str) -> None:
    assert f"## {section}\n" in README
