"""Writes every generated file of a checkout: `python -m kubewire.lab.setup.generate`.

Generated files are in the tree because editors and people read them there. Tests compare each file
with the output of its generator. The models of the Kubernetes API are not among them, only the
types that come from the models: the models are made from Go modules that have to be downloaded
first (components/apiserver/openapi/generate.py).
"""

from __future__ import annotations

import sys

from kubewire.components.apiserver.openapi import typeddicts
from kubewire.lab.setup import network_lists, topology_examples
from kubewire.scenarios.engine.file import generate as lab_file
from kubewire.scenarios.engine.verbs import generate as verbs


def main() -> int:
    """Writes the files. Returns 0, or 2 if this is not a checkout."""
    writers = (
        lab_file.main,
        verbs.main,
        topology_examples.main,
        typeddicts.main,
        network_lists.main,
    )
    return next((code for write in writers if (code := write())), 0)


if __name__ == "__main__":
    sys.exit(main())
