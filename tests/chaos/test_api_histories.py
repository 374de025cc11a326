"""Concurrent clients of an API server that is killed under them: is what they saw a history of one store?

In the manner of Jepsen (https://jepsen.io/consistency). The default suite has a few kills. The long run is

    KUBEWIRE_CHAOS=200 ./kubewire test tests/chaos/test_api_histories.py -s
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from kubewire.components.apiserver.store import DEFAULT_WINDOW
from tests.chaos import seeds
from tests.chaos.api_clients import Lister, Traffic, Watcher, Writer, crew
from tests.chaos.model import Violation, check
from tests.components.apiserver.running import RunningApiServer

_DEFAULT_KILLS = 2
_WRITERS = 3
#: Events. The server's own window is 8192.
_SMALL_WINDOW = 64
#: For the clients to end after the last kill. It takes a second; the machine may be busy.
_END_SECONDS = 60.0
#: Kills per history. Each long run is several histories, so that each can be checked in seconds.
_KILLS_AT_ONCE = 25


def batches(kills: int) -> Iterator[int]:
    while kills > 0:
        yield min(kills, _KILLS_AT_ONCE)
        kills -= _KILLS_AT_ONCE


class ForgetfulApiServer(RunningApiServer):
    """Keeps so few events that it compacts its log all the time, and that watches and pages of lists expire."""

    def argv(self) -> list[str]:
        python, _, module, *flags = super().argv()
        code = (
            "import runpy; from kubewire.components.apiserver.store import Store; "
            f"Store.__init__.__kwdefaults__['window'] = {_SMALL_WINDOW}; "
            f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
        )
        return [python, "-c", code, *flags]


@pytest.mark.timeout(12 * 3600)
@pytest.mark.parametrize(("kind", "window"), [(RunningApiServer, DEFAULT_WINDOW), (ForgetfulApiServer, _SMALL_WINDOW)])
def test_no_history_of_a_killed_server_is_one_that_a_store_cannot_have(
    kind: type[RunningApiServer], window: int
) -> None:
    seed = seeds.seed()
    for number, kills in enumerate(batches(seeds.kills(_DEFAULT_KILLS))):
        with kind() as server:
            traffic, watchers = run_under_kills(server, f"{seed} {number}", kills, window)
        violations = check(traffic.history)
        print(summary(traffic, watchers, kills))
        assert not violations, report(violations)


def run_under_kills(server: RunningApiServer, seed: str, kills: int, window: int) -> tuple[Traffic, list[Watcher]]:
    """All that the clients saw until the last of them saw the end."""
    choices = (seeds.generator(seed, str(number)) for number in itertools.count())
    moments = next(choices)
    traffic = Traffic.to(server.kubeconfig, window)
    witness = Watcher(traffic, "witness", next(choices), witness=True)
    watching = [Background(witness.run)]
    assert witness.listed.wait(_END_SECONDS), "the witness has to be there before the first write"
    writers, listers, watchers = crew(traffic, choices, _WRITERS)
    watching += [Background(watcher.run) for watcher in watchers]
    watchers.append(witness)
    busy = [*(Background(one.run) for one in writers), *(Background(one.run) for one in listers)]
    try:
        for _ in range(kills):
            time.sleep(moments.uniform(0.05, 0.8))  # the moment itself is what is varied
            server.stop() if moments.random() < 0.2 else server.kill()
            server.spawn()
            if moments.random() < 0.2:
                time.sleep(moments.uniform(0, 0.8))  # also while it starts
                server.kill()
                server.spawn()
            server.wait_ready()
    finally:
        traffic.stopping.set()
    join_all(busy, lambda: "a writer or a lister hangs")
    end(traffic, Writer(traffic, "last-writer", next(choices)), Lister(traffic, "last-lister", next(choices)))
    join_all(watching, lambda: f"these watches have not seen the end: {[sorted(w.awaited) for w in watchers]}")
    assert not [watcher.failure for watcher in watchers if watcher.failure]
    assert not witness.expired, "what was deleted meanwhile is known to nobody, so that the model cannot judge"
    return traffic, watchers


class Background(threading.Thread):
    """A client at work. What it raises is raised by join_all."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._work = work
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error


def join_all(threads: list[Background], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + _END_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for thread in threads:
        if thread.error is not None:
            raise thread.error
    assert not any(thread.is_alive() for thread in threads), what()


def end(traffic: Traffic, writer: Writer, lister: Lister) -> None:
    writer.end()
    assert lister.once("") is not None
    assert lister.once("", limit=3) is not None


def summary(traffic: Traffic, watchers: list[Watcher], kills: int) -> str:
    history = traffic.history
    outcomes = Counter(operation.outcome for operation in history.operations)
    return (
        f"{kills} kills: {len(history.operations)} requests ({outcomes['ok']} acknowledged, {outcomes['failed']} refused, "
        f"{outcomes['unknown']} unknown), {len(history.listings)} lists, {len(history.watches)} watches with "
        f"{sum(len(watch.events) for watch in history.watches)} events, {sum(w.expired for w in watchers)} expired"
    )


def report(violations: list[Violation]) -> str:
    counts = Counter(violation.kind for violation in violations)
    return "\n".join([str(dict(counts)), *(f"{one.kind}: {one.text}" for one in violations[:20])])
