"""What every program of Kubernetes tells of its own process: the metrics of Prometheus' process
collector (https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).

The metrics of Go's runtime (go_goroutines, go_gc_duration_seconds ...) have no counterpart here.
"""

from __future__ import annotations

import os
import resource

_PAGE = resource.getpagesize()


def metrics_text(started: float) -> str:
    """In Prometheus text format. started: as unix time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", encoding="ascii") as file:
        size, resident = (int(pages) * _PAGE for pages in file.read().split()[:2])
    rows = (
        (
            "cpu_seconds_total",
            "counter",
            "CPU time of the process",
            usage.ru_utime + usage.ru_stime,
        ),
        ("max_fds", "gauge", "Most file descriptors it may open", _limit(resource.RLIMIT_NOFILE)),
        ("max_resident_memory_bytes", "gauge", "Most memory it has had", usage.ru_maxrss * 1024),
        ("open_fds", "gauge", "File descriptors it has open", _open_descriptors()),
        ("resident_memory_bytes", "gauge", "Memory that it has now", resident),
        ("start_time_seconds", "gauge", "When it started, as unix time", started),
        ("virtual_memory_bytes", "gauge", "Address space that it has now", size),
        ("virtual_memory_max_bytes", "gauge", "Most address space", _limit(resource.RLIMIT_AS)),
    )
    return "".join(
        f"# HELP process_{name} {text}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
        for name, kind, text, value in rows
    )


def _limit(of: int) -> int:
    """The soft limit; without one it is 2^64 - 1, as Go's client shows it."""
    soft, _ = resource.getrlimit(of)
    return soft if soft != resource.RLIM_INFINITY else (1 << 64) - 1


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208
