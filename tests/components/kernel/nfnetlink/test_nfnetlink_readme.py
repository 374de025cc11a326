"""The README's example does what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.scratch import isolated

README = Path(__file__).parents[4] / "components/kernel/nfnetlink/README.md"
BASE = "add table ip demo\nadd map ip demo services { type ipv4_addr . inet_proto . inet_service : verdict ; }\n"


def _run() -> str:
    subprocess.run(["nft", "-f", "-"], input=BASE, text=True, check=True)
    exec("".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)), {})
    return subprocess.run(["nft", "list", "ruleset"], text=True, check=True, capture_output=True).stdout


@pytest.mark.packet
def test_the_examples_of_the_readme_run():
    rules = isolated(_run)
    assert '10.96.0.1 . tcp . 80 comment "ns/web" : goto web' in rules
    assert "dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }" in rules
    assert "ip daddr 10.96.0.1" in rules
