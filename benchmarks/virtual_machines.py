"""How long virtual machines take: from nothing to a command's end, and until a lab of three workers is up inside.

sudo .venv/bin/python benchmarks/virtual_machines.py [RUNS [KERNEL ...]]  # 3, all that are built
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from measure import ROOT

from kubewire.vm import build
from kubewire.vm.kernels import KERNELS


def seconds(kernel: str, *command: str) -> float:
    """Of one cold `kubewire vm run`, as a user types it."""
    began = time.monotonic()
    argv = [str(ROOT / "kubewire"), "vm", "run", "--kernel", kernel, "--memory", "3072", *command]
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT)
    return time.monotonic() - began


def row(kernel: str, what: str, taken: list[float]) -> None:
    median, low, high = statistics.median(taken), min(taken), max(taken)
    print(f"{kernel:<10} {what:<40} median {median:6.1f} s   {low:.1f}-{high:.1f}, {len(taken)} runs", flush=True)


def main(runs: int, kernels: list[str]) -> None:
    for kernel in kernels:
        row(kernel, "vm run -- true", [seconds(kernel, "--", "true") for _ in range(runs)])
        up = [f"{ROOT}/kubewire", "up"]
        row(kernel, "vm run -- kubewire up (3 workers)", [seconds(kernel, "--", *up) for _ in range(runs)])
    if "uml" in kernels:
        row("uml", "vm run --virtual-time -- sleep 3h", [seconds("uml", "--virtual-time", "--", "sleep", "3h")])


if __name__ == "__main__":
    built = [kernel.name for kernel in KERNELS if build.find(kernel)]
    main(int(sys.argv[1]) if sys.argv[1:] else 3, sys.argv[2:] or built)
