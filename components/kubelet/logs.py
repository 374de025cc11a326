"""Reads container logs in CRI format for `kubectl logs`, with upstream's options.

A line of the file is `TIME STREAM TAG TEXT`. TIME is RFC 3339 with nanoseconds, STREAM is stdout or
stderr, and TAG is P for a part of a long line and F for its last part
(https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kubewire.components.kubelet import pods


class LogOptionsError(ValueError):
    """A query parameter of containerLogs is wrong (status 422)."""


@dataclass(frozen=True)
class LogOptions:
    """PodLogOptions. since: RFC 3339 in UTC with nanoseconds, comparable with log times as text."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: str = ""
    stream: str = "All"

    @classmethod
    def of(cls, query: Mapping[str, str], now: float) -> LogOptions:
        """Reads the query of a request. Raises LogOptionsError."""
        try:
            return cls(
                _flag(query, "follow"),
                _flag(query, "previous"),
                _flag(query, "timestamps"),
                _number(query, "tailLines", least=0),
                _number(query, "limitBytes", least=1),
                _since(query, now),
                query.get("stream") or "All",
            )
        except (ValueError, OverflowError) as error:
            raise LogOptionsError(str(error)) from error


def _flag(query: Mapping[str, str], key: str) -> bool:
    return query.get(key, "").lower() in ("1", "true", "t")


def _number(query: Mapping[str, str], key: str, least: int) -> int | None:
    if not query.get(key):
        return None
    number = int(query[key])
    if number < least:
        wanted = f"must be greater than or equal to {least}"
        raise ValueError(f"{key}: Invalid value: {number}: {wanted}")
    return number


def _since(query: Mapping[str, str], now: float) -> str:
    if query.get("sinceTime") and query.get("sinceSeconds"):
        raise ValueError("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if query.get("sinceTime"):
        moment = pods.parse_time(query["sinceTime"]).astimezone(UTC)
    elif seconds := _number(query, "sinceSeconds", least=1):
        moment = datetime.fromtimestamp(max(now - seconds, 0), UTC)
    else:
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06d}000Z"


@dataclass(frozen=True)
class LogLine:
    """A record of the file. partial: the container's line continues in the next record."""

    time: str
    stream: str
    partial: bool
    text: bytes


def parse_line(raw: bytes) -> LogLine | None:
    """Parses a record; returns None for a line that is not in CRI format."""
    parts = raw.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    time = parts[0].decode(errors="replace")
    text = parts[3] if len(parts) == 4 else b""
    return LogLine(time, parts[1].decode(), parts[2][:1] == b"P", text)


@dataclass
class LogWriter:
    """Turns records into what the client reads, and counts the bytes for limitBytes."""

    options: LogOptions
    sent: int = 0
    continuing: bool = False

    @property
    def full(self) -> bool:
        return self.options.limit_bytes is not None and self.sent >= self.options.limit_bytes

    def feed(self, records: Iterable[bytes]) -> bytes:
        """Returns the bytes to send for these records."""
        out = bytearray()
        for raw in records:
            line = parse_line(raw)
            if line is not None and self._wanted(line):
                out += self._render(line)
        if self.options.limit_bytes is not None:
            out = out[: max(self.options.limit_bytes - self.sent, 0)]
        self.sent += len(out)
        return bytes(out)

    def _wanted(self, line: LogLine) -> bool:
        if self.options.stream != "All" and line.stream != self.options.stream.lower():
            return False
        return not self.options.since or line.time >= self.options.since

    def _render(self, line: LogLine) -> bytes:
        stamp = b""
        if self.options.timestamps and not self.continuing:
            stamp = line.time.encode() + b" "
        self.continuing = line.partial
        return stamp + line.text + (b"" if line.partial else b"\n")


def tail_offset(path: Path, lines: int) -> int:
    """The offset at which the last `lines` lines of the file begin.

    Reads backwards in blocks, so that the end of a large log costs little.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        position = end
        if lines == 0:
            return end
        newlines = 0
        while position > 0:
            size = min(4096, position)
            position -= size
            file.seek(position)
            for offset in _newlines_backwards(file.read(size)):
                if position + offset == end - 1:
                    continue
                newlines += 1
                if newlines == lines:
                    return position + offset + 1
    return 0


def _newlines_backwards(block: bytes) -> Iterator[int]:
    index = block.rfind(b"\n")
    while index >= 0:
        yield index
        index = block.rfind(b"\n", 0, index)


def last_output(path: Path, lines: int = 80, limit: int = 2048) -> str:
    """The end of a log, the message of terminationMessagePolicy FallbackToLogsOnError."""
    try:
        with path.open("rb") as file:
            file.seek(tail_offset(path, lines))
            return LogWriter(LogOptions()).feed(file)[-limit:].decode(errors="replace")
    except OSError:
        return ""
