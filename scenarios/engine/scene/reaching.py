"""Tries many connections at once, from many places: who reaches whom, on packets.

A place that is kept out gets no answer, and only a timeout tells so. Therefore all attempts of a
place start together, in threads of one program, and the programs of all places run at the same time:
a whole matrix takes about as long as one attempt.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kubewire.scenarios.engine.handle import LabHandle
from kubewire.scenarios.engine.scene import probe

PROGRAM = "kubewire.scenarios.engine.scene.reaching:main"
#: Places that are asked at the same time.
_PLACES = 32
#: Seconds that a program may take beside its attempts, on a machine that is busy.
_PATIENCE = 30.0
#: What agnhost's netexec answers by UDP with its host name.
_DATAGRAM = "hostname"
#: A DNS query (RFC 1035, 4.1), which any server answers in some way: ID, recursion desired, one
#: question of type A and class IN.
_DNS_PORT = 53
_QUERY = "kw\x01\0\0\x01\0\0\0\0\0\0\x0akubernetes\x07default\x03svc\0\0\x01\0\x01"


@dataclass(frozen=True)
class Attempt:
    """source: a target of LabHandle. address: an IP address or a name. protocol: TCP or UDP."""

    source: str
    address: str
    port: int
    protocol: str = "TCP"

    def request(self, timeout: float) -> dict[str, Any]:
        """For the probe program."""
        found = {
            "probe": self.protocol.lower(),
            "host": self.address,
            "port": self.port,
            "timeout": timeout,
        }
        if self.protocol != "UDP":
            return found
        return found | {"send": _QUERY if self.port == _DNS_PORT else _DATAGRAM}


@dataclass(frozen=True)
class Outcome:
    """error: "" if the connection was made, or else the name of the error as in scenarios; "blind" if
    the attempt could not be made. message: the error in words."""

    error: str = ""
    message: str = ""

    @property
    def mark(self) -> str:
        """`.` reached, `r` refused, `X` no way through, `?` unknown."""
        return {
            "": ".",
            "refused": "r",
            "timeout": "X",
            "prohibited": "X",
            "unreachable": "X",
        }.get(self.error, "?")

    def __str__(self) -> str:
        return f"{self.error} ({self.message})" if self.error else "connected"


def measure(
    lab: LabHandle, attempts: Sequence[Attempt], timeout: float = 1.0
) -> dict[Attempt, Outcome]:
    """Makes all attempts. timeout: seconds for each."""
    by_source: dict[str, list[Attempt]] = {}
    for attempt in dict.fromkeys(attempts):
        by_source.setdefault(attempt.source, []).append(attempt)
    if not by_source:
        return {}

    def of_one(source: str) -> dict[Attempt, Outcome]:
        return _from(lab, source, by_source[source], timeout)

    with ThreadPoolExecutor(max_workers=min(_PLACES, len(by_source))) as pool:
        found = list(pool.map(of_one, by_source))
    return {attempt: outcome for part in found for attempt, outcome in part.items()}


def _from(
    lab: LabHandle, source: str, attempts: Sequence[Attempt], timeout: float
) -> dict[Attempt, Outcome]:
    requests = [attempt.request(timeout) for attempt in attempts]
    try:
        running = lab.start(source, main=PROGRAM, args=[json.dumps({"requests": requests})])
        try:
            done = running.wait(timeout + _PATIENCE)
        finally:
            running.stop()
    except (LookupError, TimeoutError, OSError) as error:
        return dict.fromkeys(attempts, Outcome("blind", str(error)))
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-300:]
        text = f"the probe at {source} ended with code {done.returncode}: {words}"
        return dict.fromkeys(attempts, Outcome("blind", text))
    results: list[Mapping[str, Any]] = json.loads(done.stdout)["results"]
    outcomes = [Outcome(one.get("error", ""), one.get("message", "")) for one in results]
    return dict(zip(attempts, outcomes, strict=True))


def main(argv: Sequence[str]) -> int:
    """The program at a place: like probe.main, with all requests at once."""
    requests = json.loads(argv[0])["requests"]
    results: list[Any] = [None] * len(requests)
    threads = [
        threading.Thread(target=_keep(results, number, request), daemon=True)
        for number, request in enumerate(requests)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({"results": results}))
    sys.stdout.flush()
    return 0


def _keep(results: list[Any], number: int, request: Mapping[str, Any]) -> Callable[[], None]:
    def work() -> None:
        results[number] = probe.once(request)

    return work
