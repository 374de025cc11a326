"""The model of an API server, and whether a history is one of it. Pure: no clock, no I/O.

A resourceVersion numbers the writes of the whole store, as etcd's revisions do. So the order of all writes need not be
searched for, as it must for a plain register: it is in the answers, and a history is right when all answers agree
with one log. What Kubernetes promises is in
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions (reads without resourceVersion are
of the newest state, watches deliver every change after a version, in order).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tests.chaos.history import Event, History, Key, Listing, Operation, State, Watch


@dataclass(frozen=True)
class Violation:
    """kind: for tests and counts. text: for people, with versions, keys and clients."""

    kind: str
    text: str


@dataclass(frozen=True)
class Entry:
    """A write of the log: state is what it made, or, when it deleted, what was there last (with the new version)."""

    version: int
    key: Key
    uid: str
    token: str
    side: str
    deleted: bool


class Log:
    """All writes that anybody was shown, by version, and of each key the states it went through."""

    def __init__(self, history: History) -> None:
        self.violations: list[Violation] = []
        self._entries: dict[int, Entry] = {}
        for entry in _shown(history):
            self._add(entry)
        self.entries = sorted(self._entries.values(), key=lambda entry: entry.version)
        self.versions = [entry.version for entry in self.entries]
        self.of_key: dict[Key, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self.of_key[entry.key].append(entry)
        self._versions_of_key = {key: [e.version for e in entries] for key, entries in self.of_key.items()}

    def _add(self, entry: Entry) -> None:
        known = self._entries.setdefault(entry.version, entry)
        if known != entry:
            self.violations.append(Violation("one version, two writes", f"{known} and {entry}"))

    def before(self, key: Key, version: int) -> Entry | None:
        """The object that a write of this version found; None: there was none."""
        return self.at(key, version - 1)

    def at(self, key: Key, version: int) -> Entry | None:
        """The object at a version of the store."""
        position = bisect_right(self._versions_of_key.get(key, []), version)
        entry = self.of_key[key][position - 1] if position else None
        return None if entry is None or entry.deleted else entry

    def of_key_after(self, key: Key, version: int) -> Iterator[Entry]:
        position = bisect_right(self._versions_of_key.get(key, []), version)
        return islice(self.of_key.get(key, []), position, None)

    def after(self, version: int) -> list[Entry]:
        return self.entries[bisect_right(self.versions, version) :]


def _shown(history: History) -> Iterator[Entry]:
    for operation in history.operations:
        if operation.shown is not None:
            yield _entry(operation.shown)
    for listing in history.listings:
        yield from map(_entry, listing.states)
    for watch in history.watches:
        for event in watch.events:
            if event.type in ("ADDED", "MODIFIED"):
                yield _entry(event.state)
            elif event.type == "DELETED" and not watch.side:  # of a selection, it may only have left that
                yield _entry(event.state, deleted=True)


def _entry(state: State, *, deleted: bool = False) -> Entry:
    return Entry(state.version, state.key, state.uid, state.token, state.side, deleted)


def check(history: History) -> list[Violation]:
    """What in the history no correct API server could have answered; empty when it is right."""
    log = Log(history)
    writers = {operation.token: operation for operation in history.operations if operation.token}
    known = Knowledge(history, log)
    found = list(log.violations)
    found += check_objects(log, writers)
    found += check_tokens(log, writers)
    for operation in history.operations:
        found += check_operation(operation, log, writers, known)
    for listing in history.listings:
        found += check_listing(listing, log, known)
    for watch in history.watches:
        found += check_watch(watch, log, writers)
    return found


def check_objects(log: Log, writers: dict[str, Operation]) -> Iterator[Violation]:
    """Each object is born once with a uid of its own, changes, and ends once."""
    home: dict[str, Key] = {}
    for key, entries in log.of_key.items():
        previous: Entry | None = None
        ended: set[str] = set()
        for entry in entries:
            alive = previous if previous is not None and not previous.deleted else None
            yield from _succession(entry, alive, writers.get(entry.token))
            if home.setdefault(entry.uid, key) != key or entry.uid in ended:
                yield Violation("one uid, two objects", f"{entry}; the uid was that of {home[entry.uid]} before")
            if entry.deleted:
                ended.add(entry.uid)
            previous = entry


def _succession(entry: Entry, alive: Entry | None, writer: Operation | None) -> Iterator[Violation]:
    if entry.deleted:
        if alive is None or (alive.uid, alive.token) != (entry.uid, entry.token):
            yield Violation("lost write", f"{entry} was deleted, but the log has {alive} there")
        return
    verb = writer.verb if writer is not None else ""
    if alive is None:
        if verb in ("update", "patch"):
            yield Violation("lost write", f"{entry} was made by {verb}, but the log has no object to change")
    elif verb == "create":
        yield Violation("double success", f"{entry} was created while {alive} was there")
    elif alive.uid != entry.uid:
        yield Violation("lost write", f"{entry} follows {alive} without a deletion between them")


def check_tokens(log: Log, writers: dict[str, Operation]) -> Iterator[Violation]:
    """A write takes effect once at most, and not at all when it was refused."""
    effects: dict[str, Entry] = {}
    for entry in log.entries:
        if entry.deleted:
            continue
        if entry.token in effects:
            yield Violation("applied twice", f"{effects[entry.token]} and {entry}")
        effects[entry.token] = entry
        writer = writers.get(entry.token)
        if writer is not None and writer.outcome == "failed":
            yield Violation("refused and applied", f"{entry}, of {writer}")


class Knowledge:
    """What had certainly happened when a request was sent: the greatest version in any answer that had come before."""

    def __init__(self, history: History, log: Log) -> None:
        deletions = {entry.uid: entry.version for entry in log.entries if entry.deleted}
        points = [(listing.completed, listing.version) for listing in history.listings]
        points += [(event.seen, event.state.version) for watch in history.watches for event in watch.events]
        for operation in history.operations:
            if operation.shown is not None:
                points.append((operation.completed, operation.shown.version))
            elif operation.deleted in deletions:
                points.append((operation.completed, deletions[operation.deleted]))
        points.sort()
        self._times = [time for time, _ in points]
        self._greatest: list[int] = []
        for _, version in points:
            self._greatest.append(max(version, self._greatest[-1] if self._greatest else 0))
        self.deletions = deletions

    def floor(self, time: int) -> int:
        """The version of the store at this time, at least."""
        position = bisect_right(self._times, time - 1)
        return self._greatest[position - 1] if position else 0


def check_operation(
    operation: Operation, log: Log, writers: dict[str, Operation], known: Knowledge
) -> Iterator[Violation]:
    """One answer: is it that of a store which had everything that was known before, and nothing of what came later?"""
    if operation.outcome == "unknown":
        return
    if operation.outcome == "failed":
        yield from _failure(operation, log, writers, known)
    elif operation.verb == "get":
        yield from _read(operation, log, writers, known)
    elif operation.verb == "delete":
        yield from _deletion(operation, log, known)
    else:
        yield from _write(operation, log, known)


def _write(operation: Operation, log: Log, known: Knowledge) -> Iterator[Violation]:
    shown = operation.shown
    if shown is None or (shown.key, shown.token) != (operation.key, operation.token):
        yield Violation("wrong answer", f"{operation} shows another object than it wrote")
        return
    yield from _newer(operation, shown.version, known)
    yield from _preconditions(operation, log.before(operation.key, shown.version))


def _deletion(operation: Operation, log: Log, known: Knowledge) -> Iterator[Violation]:
    version = known.deletions.get(operation.deleted)
    if version is None:
        yield Violation("lost write", f"{operation} was acknowledged, and no watch has seen that")
        return
    yield from _newer(operation, version, known)
    yield from _preconditions(operation, log.before(operation.key, version))


def _newer(operation: Operation, version: int, known: Knowledge) -> Iterator[Violation]:
    if version <= (floor := known.floor(operation.invoked)):
        yield Violation("version went back", f"{operation} got version {version} after {floor} had been shown")


def _preconditions(operation: Operation, found: Entry | None) -> Iterator[Violation]:
    if operation.version is not None and (found is None or found.version != operation.version):
        yield Violation("double success", f"{operation} succeeded, but it found {found}")
    if operation.uid is not None and (found is None or found.uid != operation.uid):
        yield Violation("double success", f"{operation} succeeded, but it found {found}")


def possible(operation: Operation, log: Log, writers: dict[str, Operation], known: Knowledge) -> Iterator[Entry | None]:
    """The states that the operation's object went through between request and answer."""
    floor = known.floor(operation.invoked)
    yield log.at(operation.key, floor)
    for entry in log.of_key_after(operation.key, floor):
        writer = None if entry.deleted else writers.get(entry.token)
        if writer is not None and writer.invoked > operation.completed:
            return  # and so are all that follow
        yield None if entry.deleted else entry


def _read(operation: Operation, log: Log, writers: dict[str, Operation], known: Knowledge) -> Iterator[Violation]:
    shown = operation.shown
    assert shown is not None
    if _entry(shown) not in possible(operation, log, writers, known):
        floor = known.floor(operation.invoked)
        yield Violation("stale read", f"{operation}; version {floor} had been shown, with {log.at(shown.key, floor)}")


#: Reason of a Status -> whether an object explains that an operation was refused so.
_EXPLAINS: dict[str, Callable[[Operation, Entry | None], bool]] = {
    "NotFound": lambda operation, found: found is None,
    "AlreadyExists": lambda operation, found: found is not None,
    "Conflict": lambda operation, found: (
        found is not None and (operation.version not in (None, found.version) or operation.uid not in (None, found.uid))
    ),
}


def _failure(operation: Operation, log: Log, writers: dict[str, Operation], known: Knowledge) -> Iterator[Violation]:
    explains = _EXPLAINS.get(operation.reason)
    if explains is None:
        yield Violation("unexpected answer", f"{operation}")
    elif not any(explains(operation, found) for found in possible(operation, log, writers, known)):
        found = log.at(operation.key, known.floor(operation.invoked))
        yield Violation("refused without cause", f"{operation}; there was {found}")


def check_listing(listing: Listing, log: Log, known: Knowledge) -> Iterator[Violation]:
    """A list is the log up to its version, and that is not older than what was known."""
    if listing.version < (floor := known.floor(listing.invoked)):
        yield Violation("stale read", f"{listing.client} listed version {listing.version} after {floor} was shown")
    keys = [key for key in log.of_key if listing.namespace in ("", key[0])]
    expected = {entry for key in keys if (entry := log.at(key, listing.version)) is not None}
    got = [_entry(state) for state in listing.states]
    where = f"{listing.client}'s list of {listing.namespace or 'all'} at {listing.version}"
    if len(set(got)) != len(got):
        yield Violation("duplicate in a list", where)
    yield from (Violation("lost write", f"{where} has no {entry}") for entry in sorted(expected - set(got), key=_order))
    yield from (Violation("stale read", f"{where} has {entry}") for entry in sorted(set(got) - expected, key=_order))


def _order(entry: Entry) -> int:
    return entry.version


def check_watch(watch: Watch, log: Log, writers: dict[str, Operation]) -> Iterator[Violation]:
    """A watch delivers every event after its start once, in order, and nothing else."""
    expected = iter(events_after(watch, log))
    awaited = next(expected, None)
    for event in watch.events:
        where = f"{watch.client}'s watch from {watch.start}: {event}"
        if event.type == "BOOKMARK":
            if awaited is not None and awaited.state.version <= event.state.version:
                yield Violation("gap in a watch", f"{where}, before {awaited}")
            continue
        if awaited is None or event.state.version < awaited.state.version:
            yield Violation("duplicate or disorder in a watch", f"{where}; expected {awaited}")
            return
        if event.state.version > awaited.state.version:
            yield Violation("gap in a watch", f"{where}; expected {awaited}")
            return
        if (event.type, event.state) != (awaited.type, awaited.state):
            yield Violation("wrong event", f"{where}; expected {awaited}")
        writer = writers.get(event.state.token)
        if event.type != "DELETED" and writer is not None and event.seen < writer.invoked:
            yield Violation("event of the future", where)
        awaited = next(expected, None)


def events_after(watch: Watch, log: Log) -> Iterable[Event]:
    """What the log is to a watch: what enters its selection is ADDED to it, what leaves it DELETED."""
    for entry in log.after(watch.start):
        if watch.namespace not in ("", entry.key[0]):
            continue
        found = log.before(entry.key, entry.version)
        was = found is not None and watch.side in ("", found.side)
        becomes = not entry.deleted and watch.side in ("", entry.side)
        if becomes:
            yield Event("MODIFIED" if was else "ADDED", _state(entry), 0)
        elif was:
            assert found is not None
            last = State(entry.key, found.uid, entry.version, found.token, found.side)
            yield Event("DELETED", last, 0)


def _state(entry: Entry) -> State:
    return State(entry.key, entry.uid, entry.version, entry.token, entry.side)
