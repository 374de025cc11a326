"""What the first process of a lab tells whoever started it, and what it makes of it when nobody listens."""

from __future__ import annotations

import os

from kubewire.lab.sandbox.process import Progress


def test_a_released_lab_knows_whether_its_starter_has_heard_it() -> None:
    read_end, write_end = os.pipe()
    assert Progress(write_end).release(ready=[])
    assert os.read(read_end, 100) == b'{"ready": []}\n'
    os.close(read_end)

    read_end, write_end = os.pipe()
    os.close(read_end)
    assert not Progress(write_end).release(ready=[])
