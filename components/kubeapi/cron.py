"""Schedules in the notation of cron, as CronJob has them (github.com/robfig/cron/v3, ParseStandard).

Five fields, minute, hour, day of month, month, day of week, or a descriptor such as @hourly or
`@every 90m`. The libraries for Python follow other implementations, which accept more (7 for
Sunday, L, #) and treat hours that a change of the clock skips or repeats in another way; a
schedule must be refused, and must fire, where Kubernetes does it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from kubewire.components.base.golang import parse_duration, quote

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()


class CronError(ValueError):
    """The text is no schedule; the message is upstream's."""


@dataclass(frozen=True)
class _Field:
    low: int
    high: int
    names: Mapping[str, int]


_MINUTE = _Field(0, 59, {})
_HOUR = _Field(0, 23, {})
_DAY = _Field(1, 31, {})
_MONTH = _Field(1, 12, {name: number for number, name in enumerate(_MONTHS, 1)})
_WEEKDAY = _Field(0, 6, {name: number for number, name in enumerate(_DAYS)})

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
#: A schedule that does not fire in this many days never does, such as 30 February.
_LONGEST = 5 * 366


@dataclass(frozen=True)
class Every:
    """A constant delay, in whole seconds."""

    seconds: int

    def next(self, after: datetime, zone: tzinfo = UTC) -> datetime | None:
        return after.replace(microsecond=0) + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Times:
    """The minutes, hours and days on which a schedule fires.

    either: one of the day of the month and the day of the week is enough, as when both are given.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def next(self, after: datetime, zone: tzinfo = UTC) -> datetime | None:
        """The first time later than after, in UTC; the fields are read in the zone."""
        start = after.astimezone(zone).date()
        # A clock that is set back at midnight repeats the day before.
        for number in range(-1, _LONGEST):
            day = start + timedelta(days=number)
            if self._fires_on(day):
                found = self._first_on(day, after, zone)
                if found is not None:
                    return found
        return None

    def _fires_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month = day.day in self.days
        in_week = day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either else in_month and in_week

    def _first_on(self, day: date, after: datetime, zone: tzinfo) -> datetime | None:
        hour = timedelta(hours=1)
        best: datetime | None = None
        for number in self.hours:
            for begin in _moments(datetime(day.year, day.month, day.day, number), zone):
                if begin + hour <= after or (best is not None and begin >= best):
                    continue
                found = (begin + timedelta(minutes=minute) for minute in self.minutes)
                later = next((moment for moment in found if moment > after), None)
                if later is not None and (best is None or later < best):
                    best = later
        return best


def _moments(local: datetime, zone: tzinfo) -> Iterator[datetime]:
    """When the zone's clocks show this hour: never, once, or twice when they are set back."""
    seen = set()
    for fold in (0, 1):
        moment = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if moment not in seen and moment.astimezone(zone).replace(tzinfo=None) == local:
            seen.add(moment)
            yield moment


Schedule = Every | Times


def parse(text: str) -> Schedule:
    """Raises CronError."""
    if not text:
        raise CronError("empty spec string")
    if text.startswith("@"):
        return _descriptor(text)
    fields = text.split()
    if len(fields) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    kinds = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)
    parsed = [_values(item, kind) for item, kind in zip(fields, kinds, strict=True)]
    minutes, hours, days, months, weekdays = (values for values, _ in parsed)
    stars = parsed[2][1] or parsed[4][1]
    return Times(tuple(sorted(minutes)), tuple(sorted(hours)), days, months, weekdays, not stars)


def _descriptor(text: str) -> Schedule:
    if text in _DESCRIPTORS:
        return parse(_DESCRIPTORS[text])
    if text.startswith("@every "):
        period = text.removeprefix("@every ")
        try:
            seconds = parse_duration(period)
        except ValueError as error:
            raise CronError(f"failed to parse duration {text}: {error}") from error
        return Every(max(math.floor(seconds), 1))
    raise CronError(f"unrecognized descriptor: {text}")


def _values(text: str, kind: _Field) -> tuple[frozenset[int], bool]:
    """The numbers of a field, and whether it is a star, which does not restrict days."""
    values: set[int] = set()
    is_star = False
    for part in text.split(","):
        found, star = _range(part, kind)
        values |= set(found)
        is_star = is_star or star
    return frozenset(values), is_star


def _range(text: str, kind: _Field) -> tuple[range, bool]:
    span, *steps = text.split("/")
    ends = span.split("-")
    is_star = ends[0] in ("*", "?")
    if is_star:
        low, high = kind.low, kind.high
    else:
        low = _number(ends[0], kind)
        if len(ends) > 2:
            raise CronError(f"too many hyphens: {text}")
        high = _number(ends[1], kind) if len(ends) == 2 else low
    if len(steps) > 1:
        raise CronError(f"too many slashes: {text}")
    step = 1
    if steps:
        step = _integer(steps[0])
        if not is_star and len(ends) == 1:
            high = kind.high
        is_star = is_star and step <= 1
    if low < kind.low:
        raise CronError(f"beginning of range ({low}) below minimum ({kind.low}): {text}")
    if high > kind.high:
        raise CronError(f"end of range ({high}) above maximum ({kind.high}): {text}")
    if low > high:
        raise CronError(f"beginning of range ({low}) beyond end of range ({high}): {text}")
    if step == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    return range(low, high + 1, step), is_star


def _number(text: str, kind: _Field) -> int:
    named = kind.names.get(text.lower())
    return _integer(text) if named is None else named


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        why = f"strconv.Atoi: parsing {quote(text)}: invalid syntax"
        raise CronError(f"failed to parse int from {text}: {why}")
    number = int(text)
    if number < 0:
        raise CronError(f"negative number ({number}) not allowed: {text}")
    return number
