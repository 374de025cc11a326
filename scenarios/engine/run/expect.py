"""Checks an expectation repeatedly until it holds or its time is up.

A cluster is eventually consistent: a new Service works only after its EndpointSlices have been
written and every kube-proxy has read them. A single look would make tests depend on timing, and a
fixed sleep would make them slow and still unreliable. So an expectation has a deadline (`within`)
and is checked again, first after 0.05 s and then at growing intervals, until it holds. With
`consistently`, it must afterwards hold without interruption for that time.

An expectation may be about many pairs, each source with each target. A pair that has held is not
checked again, and the expectation holds when every pair has. Requests that start at one source go
out in one probe process; different sources are asked at the same time.

Three outcomes are told apart. "Failed" means that something else was observed. "Blind" means that
nothing could be observed, for example because a pod does not run yet; the check is repeated, and a
negated expectation (`not: true`) does not hold then either, because the absence of a connection
must not be confused with the absence of a client. "Final" means that further looks cannot change
the result.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, TypeVar

from kubewire.scenarios.engine.events.results import Evidence, ExpectationResult
from kubewire.scenarios.engine.file.model import Expectation
from kubewire.scenarios.engine.scene.api import ApiError
from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, SceneError, pairs
from kubewire.scenarios.engine.verbs import VERBS
from kubewire.scenarios.engine.verbs.base import Look, Observation, Probe
from kubewire.scenarios.engine.verbs.probes import split_port

#: Seconds between the first two looks. Each pause is 1.5 times the one before, up to LONGEST_PAUSE.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
#: Sources that are asked at the same time.
SIDE_BY_SIDE = 8
#: Seconds for which an expectation that must fail is checked, unless its `within` is shorter.
MUST_FAIL_WITHIN = 2.0
NOWHERE = End("")


@dataclass(frozen=True)
class _Pair:
    source: End
    target: End

    @property
    def key(self) -> tuple[str, str]:
        return self.source.name, self.target.name


Looks = dict[tuple[str, str], Observation]


def evaluate(scene: Scene, expectation: Expectation) -> ExpectationResult:
    """Checks an expectation. An error of the scenario or the lab becomes the result and is not
    raised."""
    if expectation.must_fail:
        return _must_fail(scene, expectation)
    return _evaluate(scene, expectation, scene.left(expectation.within))


def _must_fail(scene: Scene, expectation: Expectation) -> ExpectationResult:
    within = min(expectation.within, MUST_FAIL_WITHIN)
    result = _evaluate(scene, replace(expectation, consistently=0), within)
    result = replace(result, expectation=expectation)
    if result.status == "error" or any(item.blind for item in result.evidence):
        return replace(
            result,
            status="error",
            message=result.message or "nothing could be observed",
        )
    if result.status == "failed":
        turned = tuple(replace(item, holds=True) for item in result.evidence)
        return replace(result, status="passed", evidence=turned)
    turned = tuple(replace(item, holds=False) for item in result.evidence)
    message = "holds, but the variant lists it in `fails`"
    return replace(result, status="failed", message=message, evidence=turned)


def _evaluate(scene: Scene, expectation: Expectation, within: float) -> ExpectationResult:
    began = time.monotonic()
    tracker = _Tracker(began)
    try:
        held = _until(scene, expectation, tracker, began + within)
        if held and expectation.consistently:
            held = _while(scene, expectation, tracker, time.monotonic() + expectation.consistently)
    except (SceneError, ValueError) as error:
        return ExpectationResult(
            expectation,
            "error",
            tracker.evidence(),
            time.monotonic() - began,
            str(error),
        )
    took = time.monotonic() - began
    if held:
        return ExpectationResult(expectation, "passed", tracker.evidence(), took)
    return ExpectationResult(
        expectation,
        "failed",
        tracker.evidence(),
        took,
        tracker.message() + scene.late,
    )


class _Tracker:
    """Keeps the last look at every pair, and counts the looks."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.last: dict[tuple[str, str], Evidence] = {}

    def note(self, looks: Looks, current: Sequence[tuple[str, str]]) -> None:
        """Records new looks and drops pairs that no longer exist."""
        for (source, target), seen in looks.items():
            before = self.last.get((source, target))
            self.last[source, target] = Evidence(
                source=source,
                target=target,
                holds=seen.holds,
                command=seen.command,
                seen=seen.seen,
                why=seen.why,
                detail=seen.detail,
                latency=seen.latency,
                tries=1 + (before.tries if before else 0),
                seconds=time.monotonic() - self.began,
                sightings=seen.sightings,
                blind=seen.blind,
                final=seen.final,
                chart=seen.chart,
            )
        self.last = {pair: self.last[pair] for pair in current if pair in self.last}

    @property
    def holding(self) -> bool:
        return bool(self.last) and all(item.holds for item in self.last.values())

    @property
    def final(self) -> bool:
        return any(item.final and not item.holds for item in self.last.values())

    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(self.last.values())

    def message(self) -> str:
        failed = [item for item in self.last.values() if not item.holds]
        if not failed:
            return "there is nothing to check: no source or target exists"
        more = f" (and {len(failed) - 1} more of {len(self.last)})" if len(failed) > 1 else ""
        return f"{failed[0].why or failed[0].seen}{more}"


def _until(scene: Scene, expectation: Expectation, tracker: _Tracker, deadline: float) -> bool:
    pause = FIRST_PAUSE
    while True:
        done = {pair for pair, item in tracker.last.items() if item.holds}
        tracker.note(*_look(scene, expectation, done))
        if tracker.holding:
            return True
        left = deadline - time.monotonic()
        if left <= 0 or tracker.final:
            return False
        scene.pause(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _while(scene: Scene, expectation: Expectation, tracker: _Tracker, deadline: float) -> bool:
    while time.monotonic() < deadline:
        tracker.note(*_look(scene, expectation, set()))
        if not tracker.holding:
            return False
        scene.pause(min(0.2, max(0.0, deadline - time.monotonic())))
    return True


def _look(
    scene: Scene, expectation: Expectation, done: set[tuple[str, str]]
) -> tuple[Looks, Sequence[tuple[str, str]]]:
    """Looks once at every pair that has not held yet. Returns these looks, and the keys of all
    pairs that exist now (pods come and go while an expectation is checked)."""
    try:
        now = _pairs(scene, expectation)
    except (NotYet, ApiError, OSError) as error:
        nowhere = ", ".join(expectation.sources), ""
        return {nowhere: _blind(error)}, [nowhere]
    todo = [pair for pair in now if pair.key not in done]
    kind = VERBS[expectation.verb]
    looks = _look_at(scene, expectation, kind, todo)
    if expectation.negated:
        looks = {pair: _negated(seen) for pair, seen in looks.items()}
    return looks, [pair.key for pair in now]


def _look_at(
    scene: Scene,
    expectation: Expectation,
    kind: type[Look] | type[Probe],
    todo: Sequence[_Pair],
) -> Looks:
    if issubclass(kind, Probe):
        return _probe(scene, expectation, kind, todo)
    return _each(scene, expectation, kind, todo)


def _blind(error: Exception) -> Observation:
    return Observation(False, "", str(error), why=str(error), blind=True)


def _negated(seen: Observation) -> Observation:
    if seen.blind:
        return seen
    if seen.holds:
        return replace(seen, holds=False, why=f"this should not happen: {seen.seen}")
    return replace(seen, holds=True, why="")


def _pairs(scene: Scene, expectation: Expectation) -> list[_Pair]:
    family = expectation.family
    sources = []
    for text in expectation.sources:
        sources += [end.within(family) for end in scene.source(scene.resolve(text))]
    to = expectation.args.get("to") if _sends(expectation) else None
    if not to:
        return [_Pair(source, NOWHERE) for source in sources or [NOWHERE]]
    skip_self = bool(expectation.args.get("exceptSelf"))
    return [
        _Pair(source, target)
        for one in sources
        for source, target in pairs([one], _targets(scene, to, one, family), skip_self)
    ]


def _targets(scene: Scene, to: str, source: End, family: str) -> list[End]:
    """The ends that `to` names. It may end with a port: "worker-1:30080", "pod:web:8080",
    "10.244.2.3:80"."""
    resolved: str = scene.resolve(to, {"from": source})
    head, port = _port_apart(resolved)
    found = [end.within(family) for end in scene.ends(head)]
    return [replace(end, ip=_in_brackets(end.ip) + port) for end in found] if port else found


def _in_brackets(address: str) -> str:
    return f"[{address}]" if _is_ipv6(address) else address


def _port_apart(text: str) -> tuple[str, str]:
    """Splits a port off: "pod:web:8080" -> ("pod:web", ":8080"). The last part of an IPv6 address
    is not a port, and neither is the 5 in "pod:5", which is a name."""
    head, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or head in ("pod", "pods", "service", "svc"):
        return text, ""
    return (text, "") if ":" in head and _is_ipv6(text) else (head, f":{port}")


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _arguments(scene: Scene, expectation: Expectation, pair: _Pair) -> Mapping[str, Any]:
    """The verb's arguments for a pair. For a probe, "to" becomes the target's address, with its
    port if it has one."""
    bare = pair.target
    if _has_port(bare.ip):
        bare = replace(bare, ip=split_port(bare.ip, 0)[0])
    args = dict(expectation.args)
    target = {"to": pair.target.ip} if _sends(expectation) and args.pop("to", None) else {}
    resolved: dict[str, Any] = scene.resolve(args, {"from": pair.source, "to": bare})
    return {**resolved, **target}


def _has_port(text: str) -> bool:
    has_separator = text.count(":") == 1 or (text.startswith("[") and "]:" in text)
    return has_separator and text.rpartition(":")[2].isdigit()


def _sends(expectation: Expectation) -> bool:
    """Whether the verb sends something to its "to"."""
    return issubclass(VERBS[expectation.verb], Probe)


def _probe(
    scene: Scene,
    expectation: Expectation,
    kind: type[Probe],
    todo: Sequence[_Pair],
) -> Looks:
    by_source: dict[str, list[tuple[_Pair, Probe]]] = {}
    looks: Looks = {}
    for pair in todo:
        try:
            verb = kind.read(_arguments(scene, expectation, pair))
        except (NotYet, ApiError, OSError) as error:
            looks[pair.key] = _blind(error)
        else:
            by_source.setdefault(pair.source.target, []).append((pair, verb))
    ask = functools.partial(_ask, scene, expectation.family)
    return looks | _side_by_side(ask, list(by_source.values()))


def _ask(scene: Scene, family: str, group: Sequence[tuple[_Pair, Probe]]) -> Looks:
    """Runs one probe process at the source that the pairs share. family: the IP family for which
    names are looked up."""
    requests = [verb.request() | {"family": family} for _, verb in group]
    source = group[0][0].source
    # A name may be looked up once for each domain of the search list.
    allowed = 10.0
    for request in requests:
        allowed += float(request["timeout"]) * request.get("repeat", 1) * 6
    program = group[0][1].PROGRAM
    try:
        running = scene.lab.start(
            source.target,
            main=program,
            args=[json.dumps({"requests": requests})],
        )
        try:
            done = running.wait(allowed)
        finally:
            running.stop()
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()[-300:]
            raise NotYet(f"the probe at {source.name} ended with code {done.returncode}: {words}")
    except (LookupError, TimeoutError, NotYet, OSError) as error:
        return {pair.key: _blind(error) for pair, _ in group}
    results = json.loads(done.stdout)["results"]
    looks = {}
    for (pair, verb), result in zip(group, results, strict=True):
        looks[pair.key] = verb.judge(result, pair.source)
    return looks


def _each(scene: Scene, expectation: Expectation, kind: type[Look], todo: Sequence[_Pair]) -> Looks:
    def look(pair: _Pair) -> Looks:
        try:
            verb = kind.read(_arguments(scene, expectation, pair))
            return {pair.key: verb.look(scene, pair.source)}
        except (NotYet, ApiError, OSError) as error:
            return {pair.key: _blind(error)}

    return _side_by_side(look, todo)


Job = TypeVar("Job")


def _side_by_side(work: Callable[[Job], Looks], jobs: Sequence[Job]) -> Looks:
    if len(jobs) == 1:
        return work(jobs[0])
    with ThreadPoolExecutor(max_workers=min(SIDE_BY_SIDE, max(1, len(jobs)))) as pool:
        results = list(pool.map(work, jobs))
    return {pair: seen for looks in results for pair, seen in looks.items()}
