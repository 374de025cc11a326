"""Parts that the benchmarks share: running the launcher, medians, memory, and the machine's
name."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def kubewire(
    *arguments: str,
    check: bool = True,
    timeout: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """Runs the launcher as a user would."""
    command = [str(ROOT / "kubewire"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=timeout)


def machine() -> str:
    """One line about the machine on which the figures were measured."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"kernel {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {versions}"


@contextmanager
def stopwatch(into: list[float]) -> Iterator[None]:
    """Appends the duration of the block in seconds."""
    began = time.monotonic()
    yield
    into.append(time.monotonic() - began)


def row(name: str, values: Sequence[float], unit: str = "s") -> str:
    """A line with the median, the minimum, the maximum and the number of values."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{name}: {median:.2f} {unit} (median of {len(values)}; {low:.2f}-{high:.2f})"


def percentile(ascending: Sequence[float], part: int) -> float:
    """The value that `part` percent of the values do not exceed (nearest rank)."""
    return ascending[max(0, -(-len(ascending) * part // 100) - 1)]


def proportional_memory(init_pid: int) -> float:
    """MiB: the sum of the proportional set sizes of a lab's processes, which counts a shared page
    once."""
    from kubewire.lab.commands.status import _descendants

    total = 0
    for pid in _descendants(init_pid):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
        )
    return total / 1024


def lab_record(name: str) -> dict[str, object]:
    """The content of lab.json of a running lab."""
    from kubewire.lab.state import find

    record: dict[str, object] = json.loads((find(name).path / "lab.json").read_text())
    return record


# A benchmark runs as a file. It and the programs that it starts find kubewire and parts of the
# tests by these paths.
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
)
