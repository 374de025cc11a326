"""When schedules fire, and which texts are none."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from kubewire.components.kubeapi import cron

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("*/15 * * * *", UTC, "2026-01-01T00:00:01", "2026-01-01T00:15:00"),
        ("0 0 * * *", UTC, "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("@hourly", UTC, "2026-01-01T23:30:00", "2026-01-02T00:00:00"),
        ("@every 90m", UTC, "2026-01-01T00:00:00", "2026-01-01T01:30:00"),
        ("0 9 * * mon-FRI", UTC, "2026-01-02T10:00:00", "2026-01-05T09:00:00"),
        ("0 0 13 * 5", UTC, "2026-01-03T00:00:00", "2026-01-09T00:00:00"),
        ("0 0 13 * ?", UTC, "2026-01-03T00:00:00", "2026-01-13T00:00:00"),
        ("0 0 13 * */1", UTC, "2026-01-03T00:00:00", "2026-01-13T00:00:00"),
        ("5/20 1,3 * * *", UTC, "2026-01-01T01:30:00", "2026-01-01T01:45:00"),
        ("0 0 29 2 *", UTC, "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 30 2 *", UTC, "2026-01-01T00:00:00", None),
        ("0 8 * * *", BERLIN, "2026-01-01T00:00:00", "2026-01-01T07:00:00"),
        ("30 2 * * *", BERLIN, "2026-03-28T23:00:00", "2026-03-30T00:30:00"),
        ("30 2 * * *", BERLIN, "2026-10-25T00:30:00", "2026-10-25T01:30:00"),
        ("0 5 * * *", ZoneInfo("Asia/Kolkata"), "2026-01-01T00:00:00", "2026-01-01T23:30:00"),
    ],
    ids=[
        "steps",
        "later than after",
        "a descriptor",
        "a period",
        "names",
        "either day, if both are given",
        "a question mark is a star",
        "a step of one is a star",
        "a step from a start",
        "leap years",
        "never",
        "a zone",
        "not in an hour that is skipped",
        "twice in an hour that is repeated",
        "a zone with half an hour",
    ],
)
def test_the_next_time(text: str, zone: ZoneInfo, after: str, expected: str | None) -> None:
    found = cron.parse(text).next(datetime.fromisoformat(after).replace(tzinfo=UTC), zone)
    assert (found and found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@soon", "unrecognized descriptor: @soon"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(cron.CronError) as caught:
        cron.parse(text)
    assert str(caught.value) == message
