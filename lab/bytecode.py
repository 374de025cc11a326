"""Compiles the sources of a checkout before a lab starts.

A lab cannot write the checkout, so without this Python would compile every component anew in each
lab. That took half a second of each `up`, on two cores. An installation is compiled by pip.
"""

from __future__ import annotations

import os
import sys

from kubewire.components.base import sources

_FOLDERS = ("components", "lab", "scenarios", "topologies", "vm")


def ensure() -> None:
    """Compiles what is new or has changed; with nothing to do it takes 25 ms.

    A checkout of another user cannot be written, and then remains as it is.
    """
    if not sources.IS_CHECKOUT or sys.dont_write_bytecode:
        return
    if not os.access(sources.FOLDER, os.W_OK):
        return
    import compileall  # its imports take 20 ms

    for folder in _FOLDERS:
        compileall.compile_dir(sources.FOLDER / folder, quiet=2)
