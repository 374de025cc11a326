"""The store: all objects of the cluster, one growing resourceVersion, and a window of history.

It takes etcd's place and gives the same guarantees to the layers above. Kubernetes needs three of
them:

- Every write gets the next revision of one counter for the whole store. The resourceVersion of an
  object is the revision of its last write, and that of a list the revision at which it was read.
  Clients pass it back when they write or watch.
- A write is compare-and-swap: it names the revision it read and fails if that is no longer the
  current one. Optimistic concurrency is built on this
  (https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#concurrency-control-and-consistency).
- The changes after any revision can be read in order and without gaps, so that a watch continues
  exactly where a list ended. History cannot be kept for ever: what is older than the window answers
  410 Expired, and the client lists again.

On disk the store is a log: one row for each write, whose primary key is the revision. The current
state is the newest row of each key. Memory has the decoded objects, their encoded bytes and the
last `window` events, so reads and watches never touch the disk. Rows that are no longer needed are
deleted in batches (compaction).

SQLite runs in WAL mode with synchronous=NORMAL, and each write is one transaction. It reaches the
operating system before it is acknowledged, so a kill -9 of this process loses nothing. NORMAL
syncs to the disk only at checkpoints: a power failure may lose the last writes, but never the
file's integrity.

Everything is synchronous and belongs to one event loop, so a read followed by a write without an
await between them is atomic. A worker thread (owner.py) may call the store too: each call is one
step in the loop's thread, and the expected revision of a write shows whether another one came in
between.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import orjson

from kubewire.components.apiserver import bodies
from kubewire.components.apiserver.owner import OwnerThread
from kubewire.components.kubeapi.resources import KubeObject

EventType = Literal["ADDED", "MODIFIED", "DELETED"]

DEFAULT_WINDOW = 8192
_COMPACTION_BATCH = 512

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, deleted INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
_COLUMNS = "revision, resource, namespace, name, deleted, body"
_INSERT = f"INSERT INTO log ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"


class Key(NamedTuple):
    """The key of an object: resource is "pods" or "deployments.apps".

    namespace is "" for cluster-scoped objects.
    """

    resource: str
    namespace: str
    name: str


class StoreError(Exception):
    """The database cannot be used; the message names the file."""


class KeyExists(Exception):
    """create() was called for a key that exists."""


class RevisionMismatch(Exception):
    """The object is gone or not at the revision that update() or delete() expects."""


class RevisionExpired(Exception):
    """The revision is older than the window; `oldest` is the first one that is available."""

    def __init__(self, oldest: int) -> None:
        super().__init__(oldest)
        self.oldest = oldest


class Stored:
    """An object at one revision; body is its JSON, and obj its decoded form, which must not be
    changed.

    fields and frames are caches of the layers above: selectable fields, and encoded watch events,
    which are kept only while a write notifies its listeners. frames also has what a webhook
    converted, until the object changes, and the object's message of lists in protobuf.
    """

    __slots__ = ("_obj", "body", "fields", "frames", "key", "revision")

    def __init__(self, key: Key, revision: int, body: bytes, obj: KubeObject | None = None) -> None:
        self.key = key
        self.revision = revision
        self.body = body
        self._obj = obj
        self.fields: dict[str, str] | None = None
        self.frames: dict[tuple[str, str], bytes] = {}

    @property
    def obj(self) -> KubeObject:
        # The attribute is read once, because the owner thread may call forget() meanwhile.
        obj = self._obj
        if obj is None:
            obj = self._obj = orjson.loads(self.body)
        return obj

    def copy(self) -> KubeObject:
        """A decoded copy that the caller may change."""
        result: KubeObject = orjson.loads(self.body)
        return result

    def forget(self) -> None:
        """Drops all but the bytes of a superseded revision, which history needs."""
        self._obj = None
        self.frames.clear()


class Event(NamedTuple):
    """A write; stored is the object after it.

    For DELETED stored is the last state, at the revision of the deletion.
    """

    type: EventType
    stored: Stored
    previous: Stored | None

    @property
    def revision(self) -> int:
        return self.stored.revision


Listener = Callable[[Event], None]
#: (namespace, name) of an object of one resource.
_Place = tuple[str, str]


class _Table:
    """The objects, history and listeners of one resource."""

    __slots__ = ("_sorted", "history", "items", "listeners", "size")

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Stored] = {}
        #: The bytes of all items' bodies.
        self.size = 0
        self.history: deque[Event] = deque()
        self.listeners: dict[int, Listener] = {}
        #: The keys are sorted on first use and kept sorted, because sorting 100,000 keys takes
        #: longer than a request may.
        self._sorted: list[tuple[str, str]] | None = None

    def put(self, stored: Stored) -> None:
        key = (stored.key.namespace, stored.key.name)
        old = self.items.get(key)
        if old is None and self._sorted is not None:
            insort(self._sorted, key)
        self.size += len(stored.body) - (len(old.body) if old is not None else 0)
        self.items[key] = stored

    def remove(self, key: Key) -> None:
        place = (key.namespace, key.name)
        self.size -= len(self.items.pop(place).body)
        if self._sorted is not None:
            del self._sorted[bisect_left(self._sorted, place)]

    def keys(self) -> list[tuple[str, str]]:
        if self._sorted is None:
            self._sorted = sorted(self.items)
        return self._sorted

    def in_order(self) -> list[Stored]:
        return [self.items[key] for key in self.keys()]

    def at(self, revision: int) -> dict[tuple[str, str], Stored | None]:
        """The differences between the current objects and an older revision; None means absent
        then.
        """
        then: dict[tuple[str, str], Stored | None] = {}
        for event in reversed(self.history):
            if event.revision <= revision:
                break
            then[(event.stored.key.namespace, event.stored.key.name)] = event.previous
        return then


class Store:
    """The store of one file; close() it when done. The path ":memory:" keeps nothing on disk."""

    def __init__(self, path: str | Path, *, window: int = DEFAULT_WINDOW) -> None:
        #: The thread in which the state may be changed.
        self.owner = OwnerThread()
        self.revision = 0
        #: Events up to this revision are no longer available.
        self.compacted = 0
        self._window = window
        self._events: deque[Event] = deque()
        self._tables: dict[str, _Table] = {}
        self._garbage: list[int] = []
        self._next_listener = 0
        self._database = _open(path)
        self._load()

    def close(self) -> None:
        self._database.close()

    def get(self, key: Key) -> Stored | None:
        table = self._tables.get(key.resource)
        return table.items.get((key.namespace, key.name)) if table else None

    def items(self, resource: str) -> list[Stored]:
        """The current objects, sorted by (namespace, name)."""
        table = self._tables.get(resource)
        return self.owner.call(table.in_order) if table else []

    def count(self, resource: str) -> int:
        table = self._tables.get(resource)
        return len(table.items) if table else 0

    def size(self, resource: str) -> int:
        """The bytes of the current objects."""
        table = self._tables.get(resource)
        return table.size if table else 0

    def resources(self) -> list[str]:
        return [name for name, table in self._tables.items() if table.items]

    def list_at(
        self,
        resource: str,
        revision: int,
        after: tuple[str, str] = ("", ""),
    ) -> list[Stored]:
        """The objects as they were at a revision, sorted, starting after (namespace, name).

        Raises RevisionExpired.
        """
        keys, items, then = self.owner.call(self._as_of, resource, revision, after)
        if then:
            # Both parts are sorted, so sorting them together takes linear time.
            keys = sorted([*keys, *sorted(key for key in then if key > after and key not in items)])
            items |= then
        return [item for key in keys if (item := items[key]) is not None]

    def _as_of(
        self, resource: str, revision: int, after: tuple[str, str]
    ) -> tuple[list[_Place], dict[_Place, Stored | None], dict[_Place, Stored | None]]:
        """Copies of the current order and objects, and the differences at that revision."""
        if revision < self.compacted:
            raise RevisionExpired(self.compacted)
        table = self._tables.get(resource)
        if table is None:
            return [], {}, {}
        keys = table.keys()
        return keys[bisect_right(keys, after) :], dict(table.items), table.at(revision)

    def events_since(self, resource: str, revision: int) -> list[Event]:
        """The events after a revision, oldest first; raises RevisionExpired."""
        if revision < self.compacted:
            raise RevisionExpired(self.compacted + 1)
        table = self._tables.get(resource)
        newer: list[Event] = []
        for event in reversed(table.history if table else ()):
            if event.revision <= revision:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def subscribe(self, resource: str, listener: Listener) -> Callable[[], None]:
        """Calls listener(event) inside each later write; returns a function that ends this."""
        listeners = self._table(resource).listeners
        self._next_listener += 1
        number = self._next_listener
        listeners[number] = listener
        return lambda: (listeners.pop(number, None), None)[1]

    def create(self, key: Key, obj: KubeObject) -> Stored:
        """Stores obj, takes it over and sets its resourceVersion. Raises KeyExists,
        bodies.TooLarge.
        """
        return self.owner.call(self._create, key, obj, _has_too_many_values(obj))

    def update(self, key: Key, obj: KubeObject, expected: int) -> Stored:
        """Like create, for an object at revision `expected`. Raises RevisionMismatch,
        bodies.TooLarge.
        """
        too_many = _has_too_many_values(obj)
        return self.owner.call(self._change, "MODIFIED", key, obj, expected, too_many)

    def delete(self, key: Key, obj: KubeObject, expected: int) -> Stored:
        """Deletes an object; watchers see obj as its last state. Raises RevisionMismatch."""
        too_many = _has_too_many_values(obj)
        return self.owner.call(self._change, "DELETED", key, obj, expected, too_many)

    def _create(self, key: Key, obj: KubeObject, too_many: bool) -> Stored:
        if self.get(key) is not None:
            raise KeyExists(key)
        return self._write("ADDED", key, obj, None, too_many)

    def _change(
        self, kind: EventType, key: Key, obj: KubeObject, expected: int, too_many: bool
    ) -> Stored:
        current = self.get(key)
        if current is None or current.revision != expected:
            raise RevisionMismatch(key)
        return self._write(kind, key, obj, current, too_many)

    def _write(
        self,
        kind: EventType,
        key: Key,
        obj: KubeObject,
        previous: Stored | None,
        too_many: bool,
    ) -> Stored:
        revision = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        body = orjson.dumps(obj)
        if len(body) > bodies.MAX_BYTES:
            raise bodies.bytes_limit()
        if too_many:
            raise bodies.values_limit()
        stored = Stored(key, revision, body, obj)
        self._database.execute(_INSERT, (revision, *key, kind == "DELETED", stored.body))
        self.revision = revision
        event = Event(kind, stored, previous)
        self._remember(event)
        for listener in tuple(self._tables[key.resource].listeners.values()):
            listener(event)
        stored.frames.clear()
        if previous is not None:
            previous.forget()
            previous.frames.clear()
        self._compact_when_due()
        return stored

    def _table(self, resource: str) -> _Table:
        table = self._tables.get(resource)
        if table is None:
            table = self._tables[resource] = _Table()
        return table

    def _remember(self, event: Event) -> None:
        table = self._table(event.stored.key.resource)
        if event.type == "DELETED":
            table.remove(event.stored.key)
        else:
            table.put(event.stored)
        table.history.append(event)
        self._events.append(event)
        while len(self._events) > self._window:
            self._forget(self._events.popleft())

    def _forget(self, event: Event) -> None:
        # The event is the oldest of all, and so also the oldest of its resource.
        self._tables[event.stored.key.resource].history.popleft()
        self.compacted = event.revision
        if event.previous is not None:
            self._garbage.append(event.previous.revision)
        if event.type == "DELETED":
            self._garbage.append(event.revision)

    def _compact_when_due(self) -> None:
        if len(self._garbage) < _COMPACTION_BATCH:
            return
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(
            "DELETE FROM log WHERE revision = ?",
            [(number,) for number in self._garbage],
        )
        self._database.execute(
            "INSERT OR REPLACE INTO meta VALUES ('compacted', ?)",
            (self.compacted,),
        )
        self._database.commit()
        self._garbage.clear()

    def _load(self) -> None:
        row = self._database.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
        self.compacted = self.revision = row[0] if row else 0
        # If the process was killed before a compaction, _remember and _forget find its rows again.
        for event in self._replay():
            self.revision = max(self.revision, event.revision)
            if event.revision > self.compacted:
                self._remember(event)
            elif event.type == "DELETED":
                self._table(event.stored.key.resource).remove(event.stored.key)
            else:
                self._table(event.stored.key.resource).put(event.stored)

    def _replay(self) -> Iterator[Event]:
        rows = self._database.execute(
            "SELECT revision, resource, namespace, name, deleted, body FROM log ORDER BY revision"
        )
        for revision, resource, namespace, name, deleted, body in rows:
            stored = Stored(Key(resource, namespace, name), revision, body)
            previous = self.get(stored.key)
            kind: EventType = "DELETED" if deleted else "MODIFIED" if previous else "ADDED"
            yield Event(kind, stored, previous)


def _has_too_many_values(obj: KubeObject) -> bool:
    """Whether the object, with a resourceVersion, has too many values; many small patches may have
    made it so.

    The thread that asks for the write counts, before the step in the owner thread: counting 3 MiB
    takes 25 ms, in which the owner would answer nobody. Whatever the revision will be, it is one
    value.
    """
    obj["metadata"].setdefault("resourceVersion", "")
    return bodies.has_too_many_values(orjson.dumps(obj))


def _open(path: str | Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(
            path,
            timeout=10,
            # Each statement is a transaction of its own unless one is begun, because BEGIN and
            # COMMIT cost as much as the INSERT of an object.
            isolation_level=None,
            cached_statements=16,
        )
        # The exclusive lock refuses a second API server on the same file. SQLite then also needs
        # no shared-memory file.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(_SCHEMA)
        # SQLite takes the exclusive lock on the first write, so this writes something.
        database.execute("DELETE FROM meta WHERE name = ''")
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; is another API server using this file?") from error
    return database
