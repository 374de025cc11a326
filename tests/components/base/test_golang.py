"""Durations, booleans and quoted texts, as Go reads and prints them.

The expectations were printed by a program that calls time.ParseDuration, Duration.String, strconv.ParseBool and
strconv.Quote (Go 1.26).
"""

from __future__ import annotations

import argparse

import pytest

from kubewire.components.base.golang import flag, format_duration, parse_bool, parse_duration, quote

LONGEST = 9223372036.854775807


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("-0", 0.0),
        ("5s", 5.0),
        ("+5s", 5.0),
        ("-2s", -2.0),
        ("30m", 1800.0),
        ("1m30s", 90.0),
        ("1s1m", 61.0),
        ("1.5h", 5400.0),
        ("1.h", 3600.0),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("250\u03bcs", 0.00025),
        ("7ns", 7e-9),
        ("1h2m3s4ms", 3723.004),
        ("24h0m0s", 86400.0),
        ("0.9999999999s", 0.999999999),
        ("0.3333333333333333333h", 1200.0),
        ("000000000000000000000000001s", 1.0),
        ("9223372036854775807ns", LONGEST),
        ("-9223372036854775808ns", -LONGEST),
        ("2562047h47m16.854775807s", LONGEST),
    ],
)
def test_durations_that_go_reads(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("x", 'time: invalid duration "x"'),
        ("s", 'time: invalid duration "s"'),
        (".s", 'time: invalid duration ".s"'),
        ("+-5s", 'time: invalid duration "+-5s"'),
        (" 5s", 'time: invalid duration " 5s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1m30", 'time: missing unit in duration "1m30"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("5S", 'time: unknown unit "S" in duration "5S"'),
        ("5s ", 'time: unknown unit "s " in duration "5s "'),
        ("1h 30m", 'time: unknown unit "h " in duration "1h 30m"'),
        ("1e3s", 'time: unknown unit "e" in duration "1e3s"'),
        ("5\u00e9", r'time: unknown unit "\xc3\xa9" in duration "5\xc3\xa9"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
        ("9" * 5000 + "s", f'time: invalid duration "{"9" * 5000}s"'),
        ("\u0665s", r'time: invalid duration "\xd9\xa5s"'),
    ],
)
def test_durations_that_go_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_duration(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (7e-9, "7ns"),
        (0.0000015, "1.5\u00b5s"),
        (0.02, "20ms"),
        (0.3, "300ms"),
        (0.0015, "1.5ms"),
        (1.5, "1.5s"),
        (59.999, "59.999s"),
        (80, "1m20s"),
        (300, "5m0s"),
        (3600, "1h0m0s"),
        (86400, "24h0m0s"),
        (-1, "-1s"),
        (-0.25, "-250ms"),
    ],
)
def test_durations_are_printed_as_go_prints_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_what_is_true(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_what_is_false(text: str) -> None:
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "tRUE", "2", " true", "true "])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_bool(text)
    assert str(raised.value) == f'strconv.ParseBool: parsing "{text}": invalid syntax'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web", '"web"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\x00\x1b\x7f", r'"\x00\x1b\x7f"'),
        ("\u00e9\u4e16", '"\u00e9\u4e16"'),
        ("\u00a0\u200b\ufeff", r'"\u00a0\u200b\ufeff"'),
        ("\U000e0001", r'"\U000e0001"'),
    ],
)
def test_texts_are_quoted(text: str, shown: str) -> None:
    assert quote(text) == shown


def test_a_flag_says_why_its_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="kube-proxy")
    parser.add_argument("--sync-period", type=flag(parse_duration))
    assert parser.parse_args(["--sync-period=1m"]).sync_period == 60
    with pytest.raises(SystemExit):
        parser.parse_args(["--sync-period=1d"])
    assert 'argument --sync-period: time: unknown unit "d" in duration "1d"' in capsys.readouterr().err
