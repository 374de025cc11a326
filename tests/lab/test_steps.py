"""What bring-up makes of the notes of the programs that it waits for."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from kubewire.lab.bringup.steps import Lab
from kubewire.lab.errors import BringUpFailed


@pytest.fixture
def lab() -> Any:
    """A lab that tells its progress to told, and whose components all run."""
    made: Any = Lab.__new__(Lab)
    made.told = []
    made._progress = SimpleNamespace(send=lambda note: made.told.append(note))
    made.dead_component = lambda: None
    made._complaints = lambda: ""
    return made


@pytest.mark.parametrize("writes", [[b"1 of 2\n2 of 2\n"], [b"1 of 2", b"\n", b"2 o", b"f 2\n"], [b"2 of 2\n", b"3"]])
def test_a_note_is_a_whole_line_however_it_arrives(lab: Any, writes: list[bytes]) -> None:
    """print() writes a line and its end one after the other when stdout has no buffer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a write is a read
    with ours, theirs:
        for data in writes:
            theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        lab._follow_notes("a step", ours.fileno(), time.monotonic() + 10)
    assert lab.told[-1] == "2 of 2" and set(lab.told) <= {"1 of 2", "2 of 2"}


def test_a_step_that_takes_too_long_says_the_last_note(lab: Any) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(b"1 of 2 nodes Ready\n")
        with pytest.raises(BringUpFailed, match="not ready in time: 1 of 2 nodes Ready"):
            lab._follow_notes("a step", ours.fileno(), time.monotonic())
