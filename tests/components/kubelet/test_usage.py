"""Processor time and memory of containers, read from a /proc that the test writes."""

from __future__ import annotations

import os
from pathlib import Path

from kubewire.components.kubelet.usage import Meter, Process, Usage, read

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def process(proc: Path, pid: int, ticks: tuple[int, int, int, int], pages: int, children: str = "") -> None:
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    before = "S 1 1 1 0 -1 0 0 0 0 0"
    (proc / str(pid) / "stat").write_text(
        f"{pid} (a ) b) {before} {' '.join(map(str, ticks))} 20 0 1 0 5 1000 {pages} 0"
    )
    (task / "children").write_text(children)


def test_a_container_is_its_first_process_with_all_descendants_and_what_ended(tmp_path: Path) -> None:
    process(tmp_path, 7, (1, 2, 4, 8), 10, "8 9 ")
    process(tmp_path, 8, (16, 0, 0, 0), 20, "10")
    process(tmp_path, 10, (0, 32, 0, 0), 40)
    assert read(7, tmp_path) == Usage((1 + 2 + 4 + 8 + 16 + 32) * TICK, 70 * PAGE), "9 has just ended"
    assert read(11, tmp_path) is None


def test_the_rate_is_that_of_the_last_period_and_of_a_young_container_since_its_start() -> None:
    usage = {1: Usage(0, 0)}
    meter = Meter(usage.get)
    container = Process("a", 1, 100.0)
    assert meter.rate(container, 2_000_000_000, 104.0) == 500_000_000
    usage[1] = Usage(4_000_000_000, 0)
    meter.measure([container], 110.0)
    assert meter.rate(container, 4_000_000_000, 111.0) == 400_000_000
    usage[1] = Usage(5_000_000_000, 0)
    meter.measure([container], 120.0)
    assert meter.rate(container, 0, 121.0) == 100_000_000
    meter.measure([], 130.0)
    assert meter.rate(Process("a", 1, 129.0), 0, 130.0) == 0, "a container that has ended is forgotten"
