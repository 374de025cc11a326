"""Writes the files that are generated from the description of a lab file: lab.schema.json and
docs/lab-file.md. Run it with `python -m kubewire.scenarios.engine.file.generate`;
tests/scenarios/test_lab_file.py fails if a file differs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from kubewire.components.base import sources
from kubewire.scenarios.engine.file import reference


def files() -> Mapping[Path, str]:
    """Path in the checkout -> generated text."""
    return {
        sources.FOLDER / "scenarios/engine/file/lab.schema.json": reference.schema_text(),
        sources.FOLDER / "docs/lab-file.md": reference.page(),
    }


def main() -> int:
    """Writes the files, and prints a line for each that has changed. Returns 0, or 2 if this is not
    a checkout."""
    return sources.write_generated(files())


if __name__ == "__main__":
    sys.exit(main())
