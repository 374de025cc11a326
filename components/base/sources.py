"""The place of kubewire's own code.

A checkout has its folders (components, lab, scenarios ...) at the top level, and a link
src/kubewire to it, so that everything is imported below one name, kubewire, as after `pip install`.
A program that starts another program of kubewire passes on the folder in which Python finds that
name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

#: For PYTHONPATH: src of a checkout, or site-packages. It is not resolved, because that would
#: follow the link.
IMPORTED_FROM = Path(__file__).parents[3]
#: The folder of components, lab ...: a checkout's top level, or site-packages/kubewire.
FOLDER = Path(__file__).resolve().parents[2]
#: True for a checkout, which has the tests, the lock file and the package lists beside the code.
IS_CHECKOUT = FOLDER.joinpath("setup.py").exists()
#: What a program must see to run kubewire's code. In an installation this includes the packages
#: that it imports.
VISIBLE = FOLDER if IS_CHECKOUT else IMPORTED_FROM


def write_generated(files: Mapping[Path, str]) -> int:
    """Writes the files that differ, a line for each; returns 0, or 2 outside of a checkout."""
    if not IS_CHECKOUT:
        print("the generated files are part of a checkout; run this there", file=sys.stderr)
        return 2
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(FOLDER)}")
    return 0
