"""The verb `reachability`: who reaches whom, as a matrix that is measured at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from kubewire.components.kubeapi.resources import ENDPOINTSLICES, SERVICES
from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.scene.api import ApiError
from kubewire.scenarios.engine.scene.reaching import Attempt, Outcome, measure
from kubewire.scenarios.engine.scene.scene import End, Scene, SceneError
from kubewire.scenarios.engine.verbs.arguments import Duration, Form, Port, choice
from kubewire.scenarios.engine.verbs.base import Look, Observation

_MARKS = {".": "reached", "X": "no answer", "r": "refused", "-": "not asked"}
_COLUMN = re.compile(r"(?P<place>.+?)(?::(?P<port>\d+))?(?:/(?P<protocol>TCP|UDP))?")
_KINDS = {"pod", "pods", "service", "svc"}


@dataclass(frozen=True)
class Table:
    """A matrix as it is written. columns: targets. rows: (source, a mark for each column)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Table:
        """Raises ValueError, with a sentence that says what is wrong in which line."""
        lines = [words for line in text.splitlines() if (words := line.split())]
        if len(lines) < 2 or lines[0][0] != "to" or len(lines[0]) < 2:
            raise ValueError("needs a line `to TARGET...`, and a line for each source")
        (_, *columns), *rows = lines
        for words in rows:
            source, marks = words[0], words[1:]
            if len(marks) != len(columns):
                raise ValueError(
                    f"the line of {source} has {len(marks)} marks for {len(columns)} targets"
                )
            for mark in marks:
                if mark not in _MARKS:
                    known = ", ".join(f"{one} {meaning}" for one, meaning in _MARKS.items())
                    raise ValueError(f"the line of {source} has {mark!r}; marks are {known}")
        doubles = [name for name in _firsts(rows) if _firsts(rows).count(name) > 1]
        if doubles:
            raise ValueError(f"{doubles[0]} has two lines")
        return cls(tuple(columns), tuple((words[0], tuple(words[1:])) for words in rows))

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """(source, target, mark), without those that are not asked."""
        for source, marks in self.rows:
            for column, mark in zip(self.columns, marks, strict=True):
                if mark != "-":
                    yield source, column, mark


def _firsts(rows: Sequence[Sequence[str]]) -> list[str]:
    return [words[0] for words in rows]


def _table_problem(text: str) -> str:
    try:
        Table.parse(text)
    except ValueError as error:
        return str(error)
    return ""


Matrix = Annotated[Table, Form({"type": "string"}, Table.parse, _table_problem)]


@dataclass(frozen=True)
class _Way:
    """A cell for one source and one target, of which its words may name several."""

    cell: tuple[str, str]
    wanted: str
    source: End
    target: End
    attempt: Attempt

    def __str__(self) -> str:
        return f"{self.source.name} -> {self.cell[1]}"


@dataclass(frozen=True)
class Reachability(Look):
    """Who reaches whom: a matrix of sources and targets, all tried at the same time.

    The first line has the word `to` and the targets, written as for a probe, with a port:
    `pod:db:5432`, `service:db:80`, `pods:app=web:80/UDP`. Each further line has a source, written as
    in `from`, and a mark for each target: `.` it is reached, `X` there is no answer, `r` the
    connection is refused, `-` it is not asked. What a pod sends to itself is left out. By UDP a
    target must answer the datagram "hostname", as agnhost does, or on port 53 a DNS query. Where a
    cell differs, the result says what the network policies of the cluster mean for it.
    """

    SHORT_FORM: ClassVar = "matrix"
    SOURCE: ClassVar = "none"
    matrix: Annotated[Matrix, "targets in the first line, then a line for each source"]
    port: Annotated[Port, "the port of targets that name none"] = 0
    protocol: Annotated[str, choice("TCP", "UDP"), "of targets that name none"] = "TCP"
    timeout: Annotated[Duration | None, "time for one attempt (default: 1s)"] = None

    def look(self, scene: Scene, source: End) -> Observation:
        ways = list(self._ways(scene))
        allowed = 1.0 if self.timeout is None else seconds(self.timeout)
        outcomes = measure(scene.lab, [way.attempt for way in ways], allowed)
        wrong = {way: outcomes[way.attempt] for way in ways if _differs(way, outcomes)}
        blind = any(outcome.error == "blind" for outcome in wrong.values())
        reasons = {} if blind else _reasons(scene, list(wrong))
        lines = [_line(way, outcome, reasons.get(way, "")) for way, outcome in wrong.items()]
        more = f" (and {len(lines) - 1} more of {len(ways)} connections)" if len(lines) > 1 else ""
        seen = f"{len(ways) - len(wrong)} of {len(ways)} connections are as expected"
        return Observation(
            holds=not wrong,
            command=f"kubewire policy matrix --measure -n {scene.namespace}",
            seen=seen,
            why=f"{lines[0]}{more}" if lines else "",
            detail="\n".join([self._shown(ways, outcomes), *lines]),
            blind=blind,
        )

    def _ways(self, scene: Scene) -> Iterator[_Way]:
        targets = {column: self._targets(scene, column) for column in self.matrix.columns}
        sources = {text: scene.source(text) for text, _ in self.matrix.rows}
        for text, column, wanted in self.matrix.cells():
            for source in sources[text]:
                for target, port, protocol in targets[column]:
                    if target.target and target.target == source.target:
                        continue  # its own traffic meets no policy
                    attempt = Attempt(source.target, target.ip, port, protocol)
                    yield _Way((text, column), wanted, source, target, attempt)

    def _targets(self, scene: Scene, column: str) -> list[tuple[End, int, str]]:
        match = _COLUMN.fullmatch(column)
        assert match is not None  # a word is never empty
        place, port = match["place"], int(match["port"] or self.port)
        if place in _KINDS:
            place, port = f"{place}:{match['port']}", self.port
        if not port:
            raise SceneError(f"{column!r} has no port; write {column}:PORT or add port")
        place = place.removeprefix("[").removesuffix("]")
        return [(end, port, match["protocol"] or self.protocol) for end in scene.ends(place)]

    def _shown(self, ways: Sequence[_Way], outcomes: Mapping[Attempt, Outcome]) -> str:
        """The matrix as seen; a cell that differs is `seen/expected`."""
        seen: dict[tuple[str, str], str] = {}
        for way in ways:
            mark = outcomes[way.attempt].mark
            if mark != way.wanted or way.cell not in seen:
                seen[way.cell] = mark if mark == way.wanted else f"{mark}/{way.wanted}"
        first = max(len(source) for source, _ in self.matrix.rows)
        widths = [max(3, len(column)) for column in self.matrix.columns]
        lines = [_spread(f"{'to':<{first}}", self.matrix.columns, widths)]
        for source, _ in self.matrix.rows:
            marks = [seen.get((source, column), "-") for column in self.matrix.columns]
            lines.append(_spread(f"{source:<{first}}", marks, widths))
        return "\n".join(lines)


def _spread(head: str, words: Sequence[str], widths: Sequence[int]) -> str:
    cells = (f"{word:<{width}}" for word, width in zip(words, widths, strict=True))
    return "  ".join([head, *cells]).rstrip()


def _differs(way: _Way, outcomes: Mapping[Attempt, Outcome]) -> bool:
    return outcomes[way.attempt].mark != way.wanted


def _line(way: _Way, outcome: Outcome, reason: str) -> str:
    text = f"{way}: expected {_MARKS[way.wanted]}, got {outcome}"
    return f"{text}; {reason}" if reason else text


# --- what policies say of a cell that differs ---


def _reasons(scene: Scene, ways: Sequence[_Way]) -> dict[_Way, str]:
    """What the policies in the cluster mean for these ways; nothing for a lab without an API."""
    if not ways:
        return {}
    from kubewire.components.policy.evaluator import Evaluator, Flow

    try:
        evaluator = Evaluator(_compiled(scene))
    except ApiError:
        return {}
    found = {}
    for way in ways:
        address, port = _behind(scene, way)
        if not (way.source.ip and address):
            continue
        try:
            verdict = evaluator.verdict(Flow(way.source.ip, address, way.attempt.protocol, port))
        except ValueError:
            continue
        found[way] = f"the policies say {verdict}"
    return found


def _compiled(scene: Scene) -> Any:
    from kubewire.components.policy.compiler.compiler import Compiler
    from kubewire.components.policy.compiler.kinds import CORE, POLICIES

    compiler = Compiler()
    for resource in (*CORE.values(), *(kind.resource for kind in POLICIES)):
        try:
            items = scene.cluster.list(resource)
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        for item in items:
            compiler.apply({"apiVersion": resource.api_version, "kind": resource.kind} | dict(item))
    return compiler.state


def _behind(scene: Scene, way: _Way) -> tuple[str, int]:
    """The address and port that policies see: of a Service, those of a pod behind it."""
    kind, _, name = way.target.name.partition(":")
    if kind != "service":
        return way.target.ip, way.attempt.port
    namespace, bare = scene.qualified(name)
    service = scene.cluster.find(SERVICES, bare, namespace)
    ports = (service or {}).get("spec", {}).get("ports", ())
    wanted = [one.get("name", "") for one in ports if one["port"] == way.attempt.port]
    selector = f"kubernetes.io/service-name={bare}"
    for part in scene.cluster.list(ENDPOINTSLICES, namespace, selector):
        for port in part.get("ports") or ():
            if [port.get("name", "")] == wanted[:1] and part.get("endpoints"):
                return part["endpoints"][0]["addresses"][0], port["port"]
    return "", 0


VERBS = {"reachability": Reachability}
