"""The store: revisions, history, compaction, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import orjson
import pytest

from kubewire.components.apiserver import bodies
from kubewire.components.apiserver.store import (
    Event,
    Key,
    KeyExists,
    RevisionExpired,
    RevisionMismatch,
    Store,
    StoreError,
)
from kubewire.components.kubeapi.resources import KubeObject

A, B = Key("pods", "default", "a"), Key("pods", "default", "b")


def pod(name: str, value: int = 0) -> KubeObject:
    return {"metadata": {"name": name}, "value": value}


def values(store: Store) -> dict[str, int]:
    return {stored.key.name: stored.obj["value"] for stored in store.items("pods")}


def test_a_write_of_too_many_values_is_refused_after_the_comparison(tmp_path: Path) -> None:
    """Which of two errors a client sees must not depend on the thread that counts."""
    store = Store(tmp_path / "db")
    large: KubeObject = {"metadata": {"name": "a"}, "values": [0] * bodies.MAX_VALUES}
    with pytest.raises(bodies.TooLarge, match="limit is 100000 values"):
        store.create(A, large)
    store.create(A, pod("a"))
    with pytest.raises(KeyExists):
        store.create(A, large)
    with pytest.raises(RevisionMismatch):
        store.update(A, large, expected=7)
    with pytest.raises(bodies.TooLarge, match="limit is 100000 values"):
        store.update(A, large, expected=1)
    with pytest.raises(bodies.TooLarge, match=f"limit is {bodies.MAX_BYTES}$"):
        store.update(A, large | {"text": "x" * bodies.MAX_BYTES}, expected=1)
    assert (values(store), store.revision) == ({"a": 0}, 1)


def test_the_resource_version_is_one_of_the_values(tmp_path: Path) -> None:
    def of(number: int) -> KubeObject:
        # The object, its metadata, name and resourceVersion; an empty list counts as two.
        return {"metadata": {"name": "a"}, "values": [0] * number}

    store = Store(tmp_path / "db")
    most = bodies.MAX_VALUES
    assert bodies.count_values(orjson.dumps(of(most - 5) | {"metadata": {"name": "a", "resourceVersion": "1"}})) == most
    with pytest.raises(bodies.TooLarge):
        store.create(A, of(most - 4))
    store.create(A, of(most - 5))


def test_a_worker_counts_the_values_beside_the_owner_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted_in: list[str] = []
    count = bodies.count_values

    def count_and_tell(body: bytes) -> int:
        counted_in.append(threading.current_thread().name)
        return count(body)

    monkeypatch.setattr(bodies, "count_values", count_and_tell)
    store = Store(tmp_path / "db")
    large: KubeObject = {"metadata": {"name": "a"}, "text": "," * 3 * bodies.MAX_VALUES}
    created = asyncio.run(store.owner.run(lambda: store.create(A, large)))
    asyncio.run(store.owner.run(lambda: store.update(A, created.copy() | {"more": 1}, 1)))
    asyncio.run(store.owner.run(lambda: store.delete(A, created.copy(), 2)))
    assert len(counted_in) == 3
    assert all(name.startswith("long-request-") for name in counted_in)


def test_revisions_grow_over_all_resources_and_stand_in_the_object(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    first = store.create(A, pod("a"))
    second = store.create(Key("nodes", "", "n"), pod("n"))
    assert (first.revision, second.revision, store.revision) == (1, 2, 2)
    assert second.obj["metadata"]["resourceVersion"] == "2"
    assert b'"resourceVersion":"2"' in second.body


def test_writes_compare_and_swap(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.create(A, pod("a"))
    with pytest.raises(KeyExists):
        store.create(A, pod("a"))
    with pytest.raises(RevisionMismatch):
        store.update(A, pod("a", 1), expected=7)
    store.update(A, pod("a", 1), expected=1)
    with pytest.raises(RevisionMismatch):
        store.delete(A, pod("a"), expected=1)
    store.delete(A, pod("a"), expected=2)
    assert store.get(A) is None
    with pytest.raises(RevisionMismatch):
        store.delete(A, pod("a"), expected=3)


def test_listeners_hear_each_write_once_and_no_more_after_they_stop(tmp_path: Path) -> None:
    store, heard = Store(tmp_path / "db"), list[Event]()
    stop = store.subscribe("pods", heard.append)
    store.create(A, pod("a"))
    store.create(Key("nodes", "", "n"), pod("n"))
    store.update(A, pod("a", 1), 1)
    store.delete(A, pod("a", 1), 3)
    stop()
    store.create(B, pod("b"))
    assert [(event.type, event.revision) for event in heard] == [("ADDED", 1), ("MODIFIED", 3), ("DELETED", 4)]
    assert heard[1].previous is not None
    assert heard[1].previous.revision == 1


def test_an_old_state_can_be_listed_while_its_history_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.create(B, pod("b"))
    store.create(A, pod("a", 1))
    store.update(A, pod("a", 2), 2)
    store.delete(B, pod("b"), 1)

    def names(revision: int) -> list[tuple[str, int]]:
        return [(one.key.name, one.obj["value"]) for one in store.list_at("pods", revision)]

    assert names(1) == [("b", 0)]
    assert names(2) == [("a", 1), ("b", 0)]
    assert names(3) == [("a", 2), ("b", 0)]
    assert names(4) == [("a", 2)]


def test_history_beyond_the_window_is_expired(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", window=3)
    store.create(A, pod("a"))
    for value in range(1, 6):
        store.update(A, pod("a", value), store.revision)
    assert store.compacted == 3
    assert [event.revision for event in store.events_since("pods", 3)] == [4, 5, 6]
    with pytest.raises(RevisionExpired):
        store.events_since("pods", 2)
    with pytest.raises(RevisionExpired):
        store.list_at("pods", 2)


def test_a_restart_keeps_objects_revision_and_history(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.create(A, pod("a"))
    store.create(B, pod("b"))
    store.update(A, pod("a", 5), 1)
    store.delete(B, pod("b"), 2)
    store.close()
    store = Store(tmp_path / "db")
    assert (store.revision, values(store)) == (4, {"a": 5})
    kinds = [(event.type, event.stored.key.name) for event in store.events_since("pods", 1)]
    assert kinds == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert store.create(B, pod("b")).revision == 5


@pytest.mark.parametrize("extra", [0, 100, 511, 700], ids="{} writes past the first compaction".format)
def test_compaction_keeps_the_file_small_and_loses_nothing(tmp_path: Path, extra: int) -> None:
    store = Store(tmp_path / "db", window=10)
    store.create(B, pod("b", 7))
    store.create(A, pod("a"))
    for value in range(600 + extra):
        store.update(A, pod("a", value), store.revision)
    store.create(Key("pods", "default", "c"), pod("c"))
    store.delete(Key("pods", "default", "c"), pod("c"), store.revision)
    expected, revision = values(store), store.revision
    store.close()
    store = Store(tmp_path / "db", window=10)
    assert values(store) == expected == {"a": 599 + extra, "b": 7}
    assert store.revision == revision
    rows = store._database.execute("SELECT count(*) FROM log").fetchone()[0]
    assert rows < 10 + 512 + 2


def test_two_servers_cannot_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: real(*args, **(kwargs | {"timeout": 0.05})))
    store = Store(tmp_path / "db")
    with pytest.raises(StoreError, match=r"db.*locked"):
        Store(tmp_path / "db")
    store.close()


_WRITER = """
import sys
import time
from kubewire.components.apiserver.store import Key, Store
store = Store(sys.argv[1])
number = 0
while True:
    number += 1
    store.create(Key("pods", "default", str(number)), {"metadata": {"name": str(number)}, "value": number})
    print(number, flush=True)
"""


def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "db")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": "src"},
    )
    assert writer.stdout is not None
    acknowledged = 0
    while acknowledged < 400:
        acknowledged = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().split())])
    writer.wait()
    store = Store(tmp_path / "db")
    assert set(range(1, acknowledged + 1)) <= set(values(store).values())


def test_order_and_history_are_those_of_a_model(tmp_path: Path) -> None:
    """Random writes; then each revision is listed whole and behind each name."""
    chance = random.Random(1)
    store = Store(tmp_path / "db")
    model: dict[str, int] = {}
    at: dict[int, list[tuple[str, int]]] = {}
    for step in range(300):
        name = f"p{chance.randrange(30):02d}"
        key = Key("pods", "default", name)
        current = store.get(key)
        if current is None:
            store.create(key, pod(name, step))
            model[name] = step
        elif chance.random() < 0.5:
            store.delete(key, pod(name, step), current.revision)
            del model[name]
        else:
            store.update(key, pod(name, step), current.revision)
            model[name] = step
        at[store.revision] = sorted(model.items())
        if step % 3 == 0:
            assert list(values(store).items()) == at[store.revision]
        assert store.size("pods") == sum(len(one.body) for one in store.items("pods"))
    for revision, expected in at.items():
        for after in ("", "p07", "p15x", "z"):
            found = store.list_at("pods", revision, ("default", after))
            assert [(one.key.name, one.obj["value"]) for one in found] == [one for one in expected if one[0] > after]


def test_the_order_of_many_is_kept_when_one_is_added_or_goes() -> None:
    """A list after each write takes less than sorting all names: half a second for 5 of 50,000 that are sorted anew."""
    store = Store(":memory:")
    names = [f"n{number:06d}" for number in range(50_000)]
    random.Random(1).shuffle(names)
    for name in names:
        store.create(Key("pods", "default", name), pod(name))
    store.items("pods")
    spent = []
    for number in range(5):
        made = store.create(Key("pods", "default", f"x{number}"), pod("x"))
        started = time.process_time()
        assert store.items("pods")[-1] is made
        spent.append(time.process_time() - started)
    assert min(spent) < 0.04
