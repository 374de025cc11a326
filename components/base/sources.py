"""Where kubewire's own code lies.

A checkout has its folders (components, lab, scenarios ...) at its top level, and a link src/kubewire that leads there,
so that everything is imported below one name, kubewire, as it is after `pip install`. A program that starts another one
of kubewire's hands on the folder in which Python finds that name.
"""

from __future__ import annotations

from pathlib import Path

#: For PYTHONPATH: src of a checkout, or site-packages. It is not resolved, which would follow the link.
IMPORTED_FROM = Path(__file__).parents[3]
#: The folder of components, lab ...: a checkout's top level, or site-packages/kubewire.
FOLDER = Path(__file__).resolve().parents[2]
#: Whether the code is a checkout, which has the tests, the lock and the lists of packages beside it.
IS_CHECKOUT = FOLDER.joinpath("setup.py").exists()
#: What a program needs to see that runs kubewire's code: of an installation also what lies beside it, which it imports.
VISIBLE = FOLDER if IS_CHECKOUT else IMPORTED_FROM
