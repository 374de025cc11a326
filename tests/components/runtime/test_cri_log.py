"""Streams of bytes as lines of the CRI format."""

from __future__ import annotations

import pytest

from kubewire.components.kubelet.logs import LogOptions, LogWriter
from kubewire.components.runtime.cri_log import MAX_LINE, LineSplitter

LONG = b"x" * MAX_LINE


@pytest.mark.parametrize(
    ("pieces", "tagged"),
    [
        ([b"a\nb\n"], [b"F a", b"F b"]),
        ([b"a", b"b\n"], [b"F ab"]),
        ([b"a\nb"], [b"F a", b"P b"]),
        ([b"\n"], [b"F "]),
        ([], []),
        ([LONG + b"y\n"], [b"P " + LONG, b"F y"]),
        ([LONG + b"y"], [b"P " + LONG, b"P y"]),
    ],
    ids=["whole lines", "in pieces", "no newline at the end", "an empty line", "nothing", "a long line", "a long last line"],
)  # fmt: skip
def test_the_last_line_ends_as_the_program_ended_it(pieces: list[bytes], tagged: list[bytes]) -> None:
    splitter = LineSplitter("stdout")
    written = b"".join(splitter.feed(piece, 0) for piece in pieces) + splitter.end(0)
    assert [line.split(b" ", 2)[2] for line in written.splitlines()] == tagged
    read = LogWriter(LogOptions()).feed(written.splitlines(keepends=True))
    assert read == b"".join(pieces), "kubectl logs prints what the program has written"
