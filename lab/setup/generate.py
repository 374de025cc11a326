"""Writes every generated file of a checkout: `python -m kubewire.lab.setup.generate`.

A generated file stays in the tree because an editor or a person reads it there. Tests compare each file with what its
generator makes. The types of the Kubernetes API are not among them: they are made from Go modules that have to be
downloaded first (components/apiserver/openapi/generate.py).
"""

from __future__ import annotations

import sys

from kubewire.lab.setup import network_lists
from kubewire.scenarios.engine.file import generate as lab_file
from kubewire.scenarios.engine.verbs import generate as verbs


def main() -> int:
    """Returns 0, or 2 outside of a checkout."""
    return lab_file.main() or verbs.main() or network_lists.main()


if __name__ == "__main__":
    sys.exit(main())
