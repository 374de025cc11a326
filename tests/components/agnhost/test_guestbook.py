"""The guestbook: entries, replicas, and what a front end passes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kubewire.components.agnhost import dial
from kubewire.components.agnhost.guestbook import Guestbook
from kubewire.components.agnhost.http import Request, Response
from tests.components.agnhost.test_programs import Start, free_port, get, start, wait_for_port

__all__ = ["start"]


def at_once(work: Callable[[], object], done: Callable[[object], None]) -> None:
    done(work())


class Others:
    """Records what other nodes are asked; a host without an answer cannot be reached."""

    def __init__(self, **answers: str | Exception) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, request: str, host: str, port: str) -> str:
        self.asked.append((request, host, port))
        answer = self.answers.get(host.replace("-", "_"), OSError("refused"))
        if isinstance(answer, Exception):
            raise answer
        return answer


def ask(book: Guestbook, target: str) -> tuple[int, str]:
    answers: list[Response] = []
    book.answer(Request("GET", target, {}), answers.append)
    (answer,) = answers
    return answer.status, answer.body.decode()


def test_entries_are_set_and_read() -> None:
    book = Guestbook("6379", at_once)
    assert ask(book, "/set?key=messages&value=TestEntry") == (200, '{"message":"Updated"}')
    assert ask(book, "/get?key=messages") == (200, '{"data":"TestEntry"}')
    assert ask(book, "/get?key=other") == (200, '{"data":""}')
    assert ask(book, "/get") == (200, '{"data":{"messages":"TestEntry"}}')


def test_a_replica_gets_what_there_is_and_then_each_entry() -> None:
    others = Others(replica="")
    book = Guestbook("6379", at_once, others)
    ask(book, "/set?key=a&value=1")
    assert ask(book, "/register?host=replica") == (200, '{"data":{"a":"1"}}')
    assert ask(book, "/set?key=b&value=2")[0] == 200
    assert others.asked == [("set?key=b&value=2", "replica", "6379")]
    ask(book, "/register?host=gone")
    text = "encountered error while propagating to replica 'gone': refused\n"
    assert ask(book, "/set?key=c&value=3") == (417, text)


@pytest.mark.parametrize(
    ("target", "answer", "asked"),
    [
        ("/guestbook?cmd=SET&key=a&value=1", (200, "done"), [("set?key=a&value=1", "agnhost-primary", "6379")]),
        (
            "/guestbook?cmd=get&key=a",
            (417, "encountered error: down\n"),
            [("get?key=a&value=", "agnhost-replica", "6379")],
        ),
        ("/guestbook?cmd=del", (400, "unsupported cmd: 'del'\n"), []),
        ("/guestbook?cmd=set", (400, "cannot set with empty key.\n"), []),
        ("/set?value=1", (400, "cannot set with empty key.\n"), []),
        ("/other", (404, "404 page not found\n"), []),
    ],
    ids=["set goes to the primary", "get goes to a replica", "no such command", "no key", "set without key", "page"],
)
def test_what_a_front_end_passes_on(target: str, answer: tuple[int, str], asked: list[tuple[str, str, str]]) -> None:
    others = Others(agnhost_primary="done", agnhost_replica=OSError("down"))
    assert ask(Guestbook("6379", at_once, others), target) == answer
    assert others.asked == asked


def test_a_service_that_is_not_there_is_told() -> None:
    others = Others(agnhost_primary=dial.BadAddress("lookup agnhost-primary: no such host"))
    text = "host and/or port param are invalid. lookup agnhost-primary: no such host\n"
    assert ask(Guestbook("6379", at_once, others), "/guestbook?cmd=set&key=a") == (400, text)


def test_a_replica_registers_itself_at_start(start: Start) -> None:
    port, own = str(free_port()), str(free_port())
    start("guestbook", "--http-port", port, "--backend-port", own)
    wait_for_port(int(port))
    get(int(port), "/set?key=a&value=1")
    replica = start("guestbook", "--http-port", own, "--backend-port", port, "--replicaof", "127.0.0.1")
    assert replica.stderr is not None
    while b"Registered to node: 127.0.0.1" not in (line := replica.stderr.readline()):
        assert line, "the replica has ended"
    assert json.loads(get(int(own), "/get")[1]) == {"data": {"a": "1"}}
    assert get(int(port), "/set?key=b&value=2")[0] == 200
    assert json.loads(get(int(own), "/get?key=b")[1]) == {"data": "2"}
