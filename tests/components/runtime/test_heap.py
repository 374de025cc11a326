"""What forked children write to lies beside, not in, the parent's pages."""

from __future__ import annotations

import subprocess
import sys

#: Leaves a hole of each size on every page or so, forks, and prints how many KiB a child has to copy to use 1 MiB.
PROGRAM = """
import os, sys
from kubewire.components.runtime.heap import fill_holes

def private():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))

SIZES = (20, 200, 450, 900, 3000)
blocks = [bytes(size) for _ in range(5000) for size in SIZES]
del blocks[::21]
if sys.argv[1] == "filled":
    fill_holes()
read, write = os.pipe()
if os.fork() == 0:
    before = private()
    used = [bytes(size) for _ in range(225) for size in SIZES]
    os.write(write, str(private() - before).encode())
    os._exit(0)
os.wait()
print(os.read(read, 100).decode())
"""


def copied(variant: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, variant], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_child_copies_little_more_than_it_uses() -> None:
    assert 1024 <= copied("filled") <= 1600


def test_with_holes_it_would_copy_several_times_that() -> None:
    assert copied("with holes") > 2500
