"""CRI log files as `kubectl logs` shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.components.kubelet.logs import (
    LogOptions,
    LogOptionsError,
    LogWriter,
    last_output,
    parse_line,
    tail_offset,
)

FILE = (
    b"2026-01-01T00:00:01.000000000Z stdout F one\n"
    b"2026-01-01T00:00:02.000000000Z stderr F two\n"
    b"2026-01-01T00:00:03.000000000Z stdout P thr\n"
    b"2026-01-01T00:00:03.500000000Z stdout F ee\n"
)
NOW = 1767225604.0  # 2026-01-01T00:00:04Z


def shown(**query: str) -> bytes:
    options = LogOptions.of(query, NOW)
    return LogWriter(options).feed(FILE.splitlines(keepends=True))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, b"one\ntwo\nthree\n"),
        ({"sinceSeconds": "2"}, b"two\nthree\n"),
        ({"sinceTime": "2026-01-01T00:00:03Z"}, b"three\n"),
        ({"limitBytes": "6"}, b"one\ntw"),
        ({"stream": "Stderr"}, b"two\n"),
        (
            {"timestamps": "true", "sinceSeconds": "1"},
            b"2026-01-01T00:00:03.000000000Z three\n",
        ),
    ],
    ids=["all", "sinceSeconds", "sinceTime", "limitBytes", "one stream", "timestamps once per line"],
)
def test_options(query: dict[str, str], expected: bytes) -> None:
    assert shown(**query) == expected


@pytest.mark.parametrize("query", [{"tailLines": "-1"}, {"sinceSeconds": "0"}, {"limitBytes": "x"}])
def test_wrong_options_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(LogOptionsError):
        LogOptions.of(query, NOW)


def test_both_ways_of_since_are_one_too_many() -> None:
    with pytest.raises(LogOptionsError, match="at most one of"):
        LogOptions.of({"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "1"}, NOW)


@pytest.mark.parametrize(("lines", "begins"), [(0, b""), (1, b"z99"), (2, b"z98"), (100, b"z0"), (1000, b"z0")])
def test_the_tail_of_a_long_file(tmp_path: Path, lines: int, begins: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"z%d %s\n" % (n, b"x" * 300) for n in range(100)))
    rest = path.read_bytes()[tail_offset(path, lines) :]
    assert rest.startswith(begins) and rest.count(b"\n") == min(lines, 100)


def test_lines_in_no_cri_format_are_passed_over() -> None:
    assert parse_line(b"hello\n") is None
    line = parse_line(b"2026-01-01T00:00:01Z stdout F\n")
    assert line is not None and line.text == b""


def test_the_last_output_is_the_termination_message(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(FILE)
    assert last_output(tmp_path / "log", lines=3) == "two\nthree\n"
    assert last_output(tmp_path / "none") == ""
