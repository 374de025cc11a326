"""The README's example is code that runs."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[3] / "components/kube_proxy/README.md"


def test_the_examples_in_the_readme_hold():
    iptables, nftables, ipvs = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(iptables + nftables + ipvs, str(README), "exec"), {})
