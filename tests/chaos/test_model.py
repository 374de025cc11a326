"""The model checker accepts what an API server may answer, and refuses what none may."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest

from tests.chaos import model
from tests.chaos.history import NEVER, Event, History, Key, Listing, Operation, State, Watch
from tests.chaos.model import check

A: Key = ("one", "a")
B: Key = ("one", "b")


def state(key: Key, version: int, token: str, uid: str = "", side: str = "in") -> State:
    return State(key, uid or f"uid-{key[1]}", version, token, side)


def done(verb: str, shown: State, invoked: int, **more: object) -> Operation:
    """An acknowledged request that took 5 ns."""
    token = "" if verb == "get" else shown.token
    operation = Operation("writer", verb, shown.key, invoked, invoked + 5, "ok", token, shown=shown)
    return replace(operation, **more)  # type: ignore[arg-type]


def refused(verb: str, key: Key, invoked: int, reason: str, **more: object) -> Operation:
    operation = Operation("writer", verb, key, invoked, invoked + 5, "failed", reason=reason)
    return replace(operation, **more)  # type: ignore[arg-type]


def listing(version: int, invoked: int, *states: State) -> Listing:
    return Listing("lister", "one", invoked, invoked + 5, version, states)


def event(type_: str, shown: State, seen: int) -> Event:
    return Event(type_, shown, seen)


def bookmark(version: int, seen: int) -> Event:
    return Event("BOOKMARK", State(("", ""), "", version, "", ""), seen)


A10 = state(A, 10, "created")
A11 = state(A, 11, "updated", side="out")
A12 = state(A, 12, "updated", side="out")  # its deletion
B20 = state(B, 20, "patched")

CREATE = done("create", A10, 100)
UPDATE = done("update", A11, 200, version=10)
DELETE = Operation("writer", "delete", A, 300, 305, "ok", deleted="uid-a", version=11)
APPLY = done("apply", B20, 400)
WATCH = Watch(
    "watcher",
    "one",
    "",
    5,
    [event("ADDED", A10, 110), event("MODIFIED", A11, 210), event("DELETED", A12, 310), bookmark(15, 320)],
)


def history(*operations: Operation, listings: tuple[Listing, ...] = (), watches: tuple[Watch, ...] = ()) -> History:
    return History(list(operations), list(listings), list(watches))


def kinds(of: History) -> set[str]:
    return {violation.kind for violation in check(of)}


GET_GONE = refused("get", A, 350, "NotFound")
CONFLICT = refused("update", A, 250, "Conflict", token="late", version=10)
UNKNOWN = Operation("writer", "create", B, 330, NEVER, "unknown", "unsure")

#: Histories that a right server may give.
RIGHT = {
    "nothing": history(),
    "a life": history(CREATE, UPDATE, DELETE, APPLY, watches=(WATCH,), listings=(listing(20, 410, B20),)),
    "a read at the same moment as a write": history(CREATE, UPDATE, done("get", A10, 202)),
    "a read that already shows the write": history(CREATE, UPDATE, done("get", A11, 202)),
    "a conflict with a later version": history(CREATE, UPDATE, CONFLICT),
    "nothing there after a deletion": history(CREATE, UPDATE, DELETE, GET_GONE, watches=(WATCH,)),
    "an unknown outcome without effect": history(UNKNOWN, listings=(listing(10, 500),)),
    "an unknown outcome with its effect": history(UNKNOWN, listings=(listing(40, 500, state(B, 40, "unsure")),)),
    "a watch that ends early": history(
        CREATE, UPDATE, DELETE, watches=(WATCH, replace(WATCH, events=WATCH.events[:1]))
    ),
    "a delete for another object is refused": history(CREATE, refused("delete", A, 200, "Conflict", uid="uid-other")),
    "a selection is left": history(
        CREATE,
        UPDATE,
        watches=(
            Watch(
                "w",
                "one",
                "in",
                5,
                [event("ADDED", A10, 110), event("DELETED", replace(A11, token="created", side="in"), 210)],
            ),
            Watch("w", "one", "out", 5, [event("ADDED", A11, 210)]),
        ),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_is_accepted(name: str) -> None:
    assert check(RIGHT[name]) == []


def watch(*events: Event, start: int = 5, side: str = "") -> Watch:
    return Watch("another", "one", side, start, list(events))


ADDED, MODIFIED, DELETED, MARK = WATCH.events
LIFE = (CREATE, UPDATE, DELETE)
#: Nobody but the request itself knows of the deletion until later.
LATE = watch(ADDED, event("DELETED", replace(A10, version=15), 900))

#: Histories that no right server can give, and what is wrong with them.
WRONG = {
    "an acknowledged create is not in a later list": ("lost write", history(CREATE, listings=(listing(30, 200),))),
    "an acknowledged update is not in a later list": (
        "lost write",
        history(CREATE, UPDATE, listings=(listing(30, 300, A10),)),
    ),
    "an acknowledged delete has no event": ("lost write", history(CREATE, UPDATE, DELETE, watches=(watch(ADDED, MODIFIED),))),
    "an update lands on nothing": ("lost write", history(UPDATE)),
    "an update lands on nothing after a deletion": (
        "lost write",
        history(*LIFE, done("update", state(A, 13, "ghost"), 400), watches=(WATCH,)),
    ),
    "another object without a deletion between": (
        "lost write",
        history(CREATE, done("apply", state(A, 14, "again", uid="other"), 400)),
    ),
    "after a restart, versions are given again": (
        "one version, two writes",
        history(CREATE, done("create", state(B, 10, "other"), 200)),
    ),
    "two objects with one uid": ("one uid, two objects", history(CREATE, done("create", state(B, 20, "x", "uid-a"), 200))),
    "a uid comes back after its object ended": (
        "one uid, two objects",
        history(*LIFE, done("create", state(A, 13, "again"), 400), watches=(WATCH,)),
    ),
    "two updates from one version succeed": (
        "double success",
        history(CREATE, UPDATE, done("update", state(A, 12, "twice"), 202, version=10)),
    ),
    "two creates of one name succeed": ("double success", history(CREATE, done("create", state(A, 14, "twice", "other"), 102))),
    "a delete of an old version succeeds": (
        "double success",
        history(CREATE, UPDATE, replace(DELETE, version=10), watches=(WATCH,)),
    ),
    "a delete of another object succeeds": (
        "double success",
        history(CREATE, UPDATE, replace(DELETE, uid="uid-other"), watches=(WATCH,)),
    ),
    "a request that was sent once took effect twice": (
        "applied twice",
        history(CREATE, listings=(listing(12, 300, replace(A10, version=12)),)),
    ),
    "a refused write took effect": (
        "refused and applied",
        history(CREATE, refused("update", A, 200, "Conflict", token="updated", version=9), listings=(listing(11, 300, A11),)),
    ),
    "versions go back": ("version went back", history(done("create", B20, 50), CREATE)),
    "versions go back after a bookmark": ("version went back", history(CREATE, watches=(watch(bookmark(50, 60)),))),
    "a write gets the version of a bookmark": ("version went back", history(CREATE, watches=(watch(bookmark(10, 60)),))),
    "versions go back after a list": ("version went back", history(CREATE, listings=(listing(30, 20),))),
    "versions go back after a deletion": (
        "version went back",
        history(CREATE, replace(DELETE, version=None), replace(APPLY, shown=replace(B20, version=12)), watches=(LATE,)),
    ),
    "a deletion takes an old state away": (
        "lost write",
        history(CREATE, UPDATE, watches=(watch(ADDED, MODIFIED, event("DELETED", replace(A12, token="created"), 310)),)),
    ),
    "a get shows what is written later": ("stale read", history(CREATE, done("get", A11, 150), UPDATE)),
    "a get finds what is created later": ("stale read", history(done("get", A10, 50), CREATE)),
    "a get shows an old state": ("stale read", history(CREATE, UPDATE, done("get", A10, 300))),
    "a get shows what a watch has seen change": (
        "stale read",
        history(CREATE, done("get", A10, 300), watches=(watch(ADDED, MODIFIED),)),
    ),
    "a list is older than an acknowledged write": (
        "stale read",
        history(CREATE, UPDATE, listings=(listing(10, 300, A10),)),
    ),
    "a list shows what is deleted": ("stale read", history(*LIFE, watches=(WATCH,), listings=(listing(15, 400, A11),))),
    "a page of a list comes twice": ("duplicate in a list", history(CREATE, listings=(listing(10, 200, A10, A10),))),
    "a write answers with another's object": (
        "wrong answer",
        history(CREATE, replace(APPLY, token="mine")),
    ),
    "an object that exists is not found": ("refused without cause", history(CREATE, refused("get", A, 200, "NotFound"))),
    "a name that is free is taken": ("refused without cause", history(refused("create", A, 200, "AlreadyExists"))),
    "a conflict with the newest version": (
        "refused without cause",
        history(CREATE, refused("update", A, 200, "Conflict", token="x", version=10)),
    ),
    "the server has failed": ("unexpected answer", history(refused("update", A, 200, "InternalError"))),
    "a watch misses an event": ("gap in a watch", history(*LIFE, watches=(WATCH, watch(ADDED, DELETED)))),
    "a watch misses its first event": ("gap in a watch", history(*LIFE, watches=(WATCH, watch(MODIFIED, DELETED)))),
    "a resumed watch misses an event": ("gap in a watch", history(*LIFE, watches=(WATCH, watch(DELETED, start=10)))),
    "a bookmark passes an event over": ("gap in a watch", history(*LIFE, watches=(WATCH, watch(ADDED, MARK)))),
    "a watch misses that its selection was left": (
        "gap in a watch",
        history(CREATE, UPDATE, watches=(watch(ADDED, bookmark(11, 300), side="in"),)),
    ),
    "an event comes twice": (
        "duplicate or disorder in a watch",
        history(*LIFE, watches=(WATCH, watch(ADDED, ADDED, MODIFIED))),
    ),
    "a resumed watch repeats an event": (
        "duplicate or disorder in a watch",
        history(*LIFE, watches=(WATCH, watch(MODIFIED, DELETED, start=11))),
    ),
    "events change places": (
        "duplicate or disorder in a watch",
        history(*LIFE, watches=(WATCH, watch(ADDED, MODIFIED, ADDED))),
    ),
    "an event with the wrong type": (
        "wrong event",
        history(*LIFE, watches=(WATCH, watch(replace(ADDED, type="MODIFIED")))),
    ),
    "an event is seen before its request": (
        "event of the future",
        history(CREATE, watches=(watch(replace(ADDED, seen=50)),)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_refused(name: str) -> None:
    kind, wrong = WRONG[name]
    assert kind in kinds(wrong), check(wrong)


def test_every_kind_of_violation_is_proved_by_a_history() -> None:
    named = set(re.findall(r'Violation\("([^"]+)"', inspect.getsource(model)))
    assert named == {kind for kind, _ in WRONG.values()}
