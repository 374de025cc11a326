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
    """Writes the files, and prints a line for each that has changed."""
    if not sources.IS_CHECKOUT:
        print(
            "an installed kubewire has no generated files; run this in a checkout",
            file=sys.stderr,
        )
        return 2
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(sources.FOLDER)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
