"""Measures virtual machines: the time from nothing to the end of a command, and until a lab of
three workers is up inside.

usage: sudo .venv/bin/python benchmarks/virtual_machines.py [RUNS [KERNEL ...]]

The defaults are 3 runs and all kernels that are built.
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
    """The seconds that one `kubewire vm run` takes from the start of the machine."""
    began = time.monotonic()
    argv = [str(ROOT / "kubewire"), "vm", "run", "--kernel", kernel, "--memory", "3072", *command]
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT)
    return time.monotonic() - began


def row(kernel: str, what: str, taken: list[float]) -> None:
    median, low, high = statistics.median(taken), min(taken), max(taken)
    print(
        f"{kernel:<10} {what:<40} median {median:6.1f} s   {low:.1f}-{high:.1f}, {len(taken)} runs",
        flush=True,
    )


def main(runs: int, kernels: list[str]) -> None:
    for kernel in kernels:
        row(kernel, "vm run -- true", [seconds(kernel, "--", "true") for _ in range(runs)])
        up = [f"{ROOT}/kubewire", "up"]
        row(
            kernel,
            "vm run -- kubewire up (3 workers)",
            [seconds(kernel, "--", *up) for _ in range(runs)],
        )
    if "uml" in kernels:
        row(
            "uml",
            "vm run --virtual-time -- sleep 3h",
            [seconds("uml", "--virtual-time", "--", "sleep", "3h")],
        )


if __name__ == "__main__":
    built = [kernel.name for kernel in KERNELS if build.find(kernel)]
    main(int(sys.argv[1]) if sys.argv[1:] else 3, sys.argv[2:] or built)
