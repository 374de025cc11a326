"""The examples of components/agnhost/README.md: each command prints what stands below it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path("components/agnhost/README.md")


def test_readme_examples() -> None:
    (block,) = re.findall(r"^```console\n(.*?)^```", README.read_text(), re.S | re.M)
    examples = re.findall(r"^\$ python (.*)\n((?:[^$].*\n)*)", block, re.M)
    assert len(examples) == 2
    for command, expected in examples:
        argv = [sys.executable, *command.split()]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.stdout == expected, command


def test_readme_lists_every_subcommand() -> None:
    from kubewire.components.agnhost.main import COMMANDS

    text = README.read_text()
    assert [name for name in COMMANDS if f"`{name}`" not in text] == []
