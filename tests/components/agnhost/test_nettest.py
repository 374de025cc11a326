"""agnhost nettest: who was contacted, by whom, and what /status makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubewire.components.agnhost.http import Request, Response
from kubewire.components.agnhost.nettest import Contacts, State, addresses, contact_all


def ask(state: State, path: str, body: bytes = b"") -> str:
    answers: list[Response] = []
    state.answer(Request("POST", path, {}, body), answers.append)
    return answers[0].body.decode()


def test_a_peer_is_counted_by_its_name() -> None:
    state = State("me", 1)
    assert json.loads(ask(state, "/write", b'{"Source": "you", "Dest": "x"}')) == {"Hostname": "me"}
    ask(state, "/write", b"{}")
    shown = json.loads(ask(state, "/read"))
    assert (shown["Received"], shown["Errors"]) == ({"you": 1}, ["me: Got request with no source"])


@pytest.mark.parametrize(
    ("sent", "received", "contacting", "status"),
    [
        ({"a": 1, "b": 1}, {"a": 1, "b": 2}, True, "pass"),
        ({"a": 9}, {"a": 1, "b": 2}, True, "running"),
        ({"a": 1, "b": 1}, {"a": 1}, False, "fail"),
    ],
    ids=["all met", "one is missing", "too late"],
)
def test_the_status(sent: dict[str, int], received: dict[str, int], contacting: bool, status: str) -> None:
    state = State("me", 2)
    state.sent, state.received, state.contacting = sent, received, contacting
    assert ask(state, "/status") == status


def test_the_addresses_of_a_service() -> None:
    subset = {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 8080}]}
    assert addresses({"subsets": [subset, subset]}) == ["http://10.0.0.1:8080", "http://[fd00::1]:8080"]
    assert addresses({}) == []


def test_a_peer_that_does_not_answer_is_told() -> None:
    ((name, problem),) = contact_all("me", ["http://127.0.0.1:1"])
    assert name == "" and problem.startswith('Warning: unable to contact the endpoint "http://127.0.0.1:1": ')


class Turns:
    """A loop that answers each turn at once with the next result, and never waits."""

    def __init__(self, *results: Any) -> None:
        self._results = list(results)
        self.turns = 0

    def offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.turns += 1
        done(self._results.pop(0) if len(self._results) > 1 else self._results[0])

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        callback()


@pytest.mark.parametrize(
    ("results", "turns", "sent"),
    [
        ([(["u"], [("you", "")])], 15, {"you": 15}),
        ([(["u"], []), OSError("no API"), (["u"], [("you", "")])], 17, {"you": 15}),
        ([OSError("no API")], 60, {}),
    ],
    ids=["fifteen rounds", "rounds begin when there are enough", "no API server"],
)
def test_how_long_peers_are_contacted(results: list[Any], turns: int, sent: dict[str, int]) -> None:
    state = State("me", 1)
    loop: Any = Turns(*results)
    Contacts(loop, state, "/path", 1).turn()
    assert (loop.turns, state.sent, state.contacting) == (turns, sent, False)
