"""Writes what is made of the description of a lab file: lab.schema.json, and docs/lab-file.md in a checkout.

`python -m kubewire.scenarios.engine.file.generate`; tests/scenarios/test_lab_file.py fails where a file differs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from kubewire.components.base import sources
from kubewire.scenarios.engine.file import reference


def files() -> Mapping[Path, str]:
    """Path of the checkout -> what is generated there."""
    return {
        sources.FOLDER / "scenarios/engine/file/lab.schema.json": reference.schema_text(),
        sources.FOLDER / "docs/lab-file.md": reference.page(),
    }


def main() -> int:
    return sources.write_generated(files())


if __name__ == "__main__":
    sys.exit(main())
