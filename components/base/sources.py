"""The place of kubewire's own code.

A checkout has its folders (components, lab, scenarios ...) at the top level, and a link
src/kubewire to it, so that everything is imported below one name, kubewire, as after `pip install`.
A program that starts another program of kubewire passes on the folder in which Python finds that
name.
"""

from __future__ import annotations

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
