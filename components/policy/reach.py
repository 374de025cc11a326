"""Who reaches whom: the evaluator's answers for all pairs of pods, as a matrix.

Each destination is asked on one port: the one that the caller names, or the first that its
containers declare, or 80.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubewire.components.policy.evaluator import Evaluator, Flow, Verdict
from kubewire.components.policy.model import Endpoint, EndpointKind, State

_DEFAULT_PORT, _DEFAULT_PROTOCOL = 80, "TCP"


@dataclass(frozen=True)
class Port:
    """A port that is asked."""

    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True)
class Cell:
    """The answer for a pair. source, destination: `namespace/name` of a pod. address: that of the
    destination which was asked."""

    source: str
    destination: str
    port: Port
    verdict: Verdict
    address: str = ""

    @property
    def denied_by(self) -> str:
        """The direction that denies, and why; "" if none does."""
        for direction in ("egress", "ingress"):
            decision = getattr(self.verdict, direction)
            if not decision.allowed:
                return f"{direction}: {decision.text}"
        return ""


@dataclass(frozen=True)
class Measured:
    """What a real connection showed. reached: whether the destination answered, None if it could not
    be tried. text: the outcome in words."""

    cell: Cell
    reached: bool | None
    text: str

    @property
    def agrees(self) -> bool:
        return self.reached == self.cell.verdict.allowed


def pods_of(state: State, namespaces: Iterable[str] = ()) -> list[Endpoint]:
    """The pods with an address, by namespace and name; only those of some namespaces, if any are
    given."""
    wanted = set(namespaces)
    found = (one for one in state.endpoints.values() if one.kind is EndpointKind.POD)
    return sorted(
        (pod for pod in found if pod.addresses and (not wanted or pod.key.namespace in wanted)),
        key=lambda pod: pod.key,
    )


def name_of(pod: Endpoint) -> str:
    return f"{pod.key.namespace}/{pod.key.name}"


def asked_port(pod: Endpoint, number: int | None, protocol: str | None) -> Port:
    """The port on which a pod is asked."""
    if number is not None:
        return Port(protocol or _DEFAULT_PROTOCOL, number)
    declared = (port for port in pod.ports if protocol in {None, port.protocol})
    first = next(declared, None)
    if first is not None:
        return Port(first.protocol, first.number)
    return Port(protocol or _DEFAULT_PROTOCOL, _DEFAULT_PORT)


def cells(
    state: State,
    pods: Sequence[Endpoint],
    number: int | None = None,
    protocol: str | None = None,
) -> list[Cell]:
    """Every pod to every other one, row by row."""
    evaluator = Evaluator(state)
    return [
        _cell(evaluator, source, destination, asked_port(destination, number, protocol))
        for source in pods
        for destination in pods
        if source is not destination
    ]


def _cell(evaluator: Evaluator, source: Endpoint, destination: Endpoint, port: Port) -> Cell:
    """Of the addresses of one IP family, the destination's first if the source has it."""
    there = destination.addresses[0]
    here = next(
        (one for one in source.addresses if (":" in one) == (":" in there)), source.addresses[0]
    )
    verdict = evaluator.verdict(Flow(here, there, port.protocol, port.number))
    return Cell(name_of(source), name_of(destination), port, verdict, there)


def table(pods: Sequence[Endpoint], found: Sequence[Cell], *, colour: bool = False) -> str:
    """The matrix as text: a row for each source, a column for each destination, by numbers."""
    names = [name_of(pod) for pod in pods]
    by_pair = {(cell.source, cell.destination): cell for cell in found}
    ports = {cell.destination: cell.port for cell in found}
    width = max(map(len, names), default=0)
    digits = len(str(len(names)))
    head = " ".join(f"{number:>{digits}}" for number in range(1, len(names) + 1))
    lines = [f"{'':<{digits + width + 2}}  {head}"]
    for number, source in enumerate(names, start=1):
        marks = (_mark(by_pair.get((source, destination)), digits, colour) for destination in names)
        lines.append(f"{number:>{digits}}  {source:<{width}}  {' '.join(marks)}")
    listed = (f"{number} {ports[name]}" for number, name in enumerate(names, 1) if name in ports)
    lines += ["", ". allowed   X denied   from the row to the column, whose port is:"]
    return "\n".join([*lines, *_wrapped(listed)]) + "\n"


def _mark(cell: Cell | None, width: int, colour: bool) -> str:
    if cell is None:
        return f"{'-':>{width}}"
    text, code = (".", 32) if cell.verdict.allowed else ("X", 31)
    padded = f"{text:>{width}}"
    return f"\x1b[{code}m{padded}\x1b[0m" if colour else padded


def _wrapped(words: Iterable[str], width: int = 100) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines.append("")
        lines[-1] += f"{'   ' if lines[-1] else ''}{word}"
    return lines


def changed(before: Sequence[Cell], after: Sequence[Cell]) -> list[tuple[Cell | None, Cell]]:
    """The pairs whose answer differs, or that are new."""
    known = {(cell.source, cell.destination, cell.port): cell for cell in before}
    pairs = ((known.get((cell.source, cell.destination, cell.port)), cell) for cell in after)
    return [
        (old, new)
        for old, new in pairs
        if old is None or old.verdict.allowed != new.verdict.allowed
    ]
