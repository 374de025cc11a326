"""The README's example is code that runs."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[3] / "components/coredns/README.md"


def test_the_example_in_the_readme_holds():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(code, str(README), "exec"), {})
