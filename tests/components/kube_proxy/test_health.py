"""What /healthz says of the time and of families that are late, in upstream's words."""

import time

import pytest

from kubewire.components.kube_proxy import health
from kubewire.components.kube_proxy.metrics import Metrics

SECOND = 1_000_000_000
STARTED = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("zone", "stamp", "shown"),
    [
        ("UTC", STARTED + 1_234_567_891, "2023-11-14 22:13:21.234567891 +0000 UTC m=+1.234567891"),
        ("UTC", STARTED + 500_000_000, "2023-11-14 22:13:20.5 +0000 UTC m=+0.500000000"),
        ("UTC", STARTED, "2023-11-14 22:13:20 +0000 UTC m=+0.000000000"),
        ("UTC", STARTED - 250_000_000, "2023-11-14 22:13:19.75 +0000 UTC m=-0.250000000"),
        ("CET-1", STARTED, "2023-11-14 23:13:20 +0100 CET m=+0.000000000"),
    ],
    ids=["nanoseconds", "zeros at the end are left out", "a whole second", "before the start", "another zone"],
)
def test_a_time_is_printed_as_gos(zone: str, stamp: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert health.go_time(stamp, STARTED) == shown
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_family_that_was_never_synced_is_starting_and_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [STARTED]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    one = health.Health(timeout=60, started=STARTED)
    one.queued("IPv6")
    now[0] += 100 * SECOND
    assert one.healthy(now[0])
    one.updated("IPv4")
    updated = now[0]
    one.queued("IPv4")
    now[0] += 60 * SECOND
    assert not one.healthy(now[0])
    assert one.last_updated(now[0]) == updated
    one.updated("IPv4")
    assert one.last_updated(now[0]) == now[0]


def test_the_process_is_among_the_metrics() -> None:
    values = dict(line.split(" ", 1) for line in Metrics().text().splitlines() if not line.startswith("#"))
    for name in ("cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds"):
        assert float(values[f"process_{name}"]) > 0
    assert abs(float(values["process_start_time_seconds"]) - time.time()) < 3600
