"""The example of components/runtime/README.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.components.runtime.conftest import Sandbox

README = Path("components/runtime/README.md")


@pytest.mark.packet
def test_readme_example(sandbox: Sandbox, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {"SOCKET": sandbox.socket, "DIRECTORY": tmp_path})
