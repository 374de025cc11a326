"""`kubewire policy ...`: who may talk to whom, which rule decides, what a change would do, and what
is wrong with policies; of a running lab, or of files alone."""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewire.components.policy import files, reach, reachpage
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.compiler.kinds import CORE, POLICIES, key_of
from kubewire.components.policy.evaluator import Decision, Evaluator, Flow
from kubewire.components.policy.lint import forms
from kubewire.components.policy.lint.policies import Cluster, lint
from kubewire.components.policy.model import Direction, Endpoint, State
from kubewire.lab.errors import UsageError

if TYPE_CHECKING:
    from kubewire.components.policy.carrier import Carriers
    from kubewire.lab.handle import RunningLab
    from kubewire.scenarios.engine.scene.reaching import Outcome

#: --fail-on -> the severities that make the exit code 1.
_FAILING = {
    "error": ("error",),
    "warning": ("error", "warning"),
    "note": ("error", "warning", "note"),
    "never": (),
}


# --- commands ---


def matrix(options: argparse.Namespace) -> int:
    """`policy matrix`. Raises UsageError, as all of them do."""
    state = _state(options)
    pods = _pods(state, options.namespace)
    found = reach.cells(state, pods, options.port, options.protocol)
    measured = _measured(options, found) if options.measure else {}
    if options.output == "text":
        print(reach.table(pods, found, colour=sys.stdout.isatty()), end="")
        if options.measure:
            print(_comparison(measured), end="")
    elif options.output == "json":
        print(json.dumps([_as_dict(cell, measured) for cell in found], indent=2))
    elif options.output == "csv":
        print(_as_csv(found, measured), end="")
    else:
        print(reachpage.page(pods, found, measured), end="")
    return int(any(not one.agrees for one in measured.values()))


def explain(options: argparse.Namespace) -> int:
    """`policy explain`."""
    state = _state(options)
    place, _, port = options.destination.partition(":")
    number, _, protocol = port.partition("/")
    if port and not number.isdigit():
        raise UsageError(
            f"{options.destination}: {number!r} is not a port; write such as shop/db:5432"
        )
    source, destination = _place(state, options.source), _place(state, place)
    there, here = destination.addresses[0], source.addresses[0]
    wanted = (int(number) if number else None, protocol.upper() or None)
    asked = reach.asked_port(destination, *wanted)
    verdict = Evaluator(state).verdict(Flow(here, there, asked.protocol, asked.number))
    answer = "allowed" if verdict.allowed else "denied"
    print(f"{_shown(source)} -> {_shown(destination)} {asked}: {answer}")
    kernel = _Kernel.of_lab(options.name) if not options.filename else None
    for direction, place, decision in (
        (Direction.EGRESS, source, verdict.egress),
        (Direction.INGRESS, destination, verdict.ingress),
    ):
        print(f"  {direction.value} of {_name(place)}: {_said(decision)}")
        if kernel is not None and place.key.kind:
            for line in kernel.carrying(state, place, direction, decision):
                print(f"    {line}")
    return 0


@dataclass(frozen=True)
class _Kernel:
    """What the nodes of a running lab have of a decision."""

    lab: RunningLab
    engine: str
    carriers: Carriers | None

    @classmethod
    def of_lab(cls, name: str) -> _Kernel:
        from kubewire.components.policy import registry
        from kubewire.lab.handle import RunningLab
        from kubewire.lab.state import running

        lab = RunningLab(*running(name))
        engine = lab.spec.policy_engine.name
        return cls(lab, engine, registry.carriers_of(engine))

    def carrying(
        self, state: State, pod: Endpoint, direction: Direction, decision: Decision
    ) -> Iterator[str]:
        """The rules and set elements, with their counters."""
        if self.carriers is None:
            if self.engine == "none":
                yield "the lab's policy engine is none: nothing enforces this"
            return
        for carrier in self.carriers(state, pod, direction, decision):
            done = self.lab.exec(pod.node, carrier.command)
            lines = carrier.lines(done.text)
            shown = " ".join(carrier.command)
            if not lines:
                yield f"{pod.node} lacks the {carrier.meaning} for it ({shown})"
            for line in lines:
                yield f"{carrier.meaning} on {pod.node}: {line}"


def trial(options: argparse.Namespace) -> int:
    """`policy try`."""
    new = _read(options.filename)
    base = _cluster_objects(options.base, options.name)
    before = _compiled(base)
    after = _compiled([*base, *_with_pods(new)])
    _refuse_problems(after, new)
    cells = [
        reach.cells(
            one.state,
            _pods(one.state, options.namespace, some=False),
            options.port,
            options.protocol,
        )
        for one in (before, after)
    ]
    differences = reach.changed(*cells)
    for old, cell in differences:
        then = "new" if old is None else "allowed" if old.verdict.allowed else "denied"
        now = "allowed" if cell.verdict.allowed else f"denied ({cell.denied_by})"
        print(f"{cell.source} -> {cell.destination} {cell.port}: {then} -> {now}")
    print(f"{len(differences)} of {len(cells[1])} connections change")
    return 0


def check(options: argparse.Namespace) -> int:
    """`policy lint`: 1 if a finding is as severe as --fail-on."""
    found = _read(options.filename)
    findings = lint(found, files.pods(found), _known(options.engine))
    print(forms.WRITERS[options.output](found, findings), end="")
    failing = _FAILING[options.fail_on]
    return int(any(one.check.severity.value in failing for one in findings))


def _known(engine: str) -> Cluster:
    if not engine:
        return Cluster()
    from kubewire.components.policy import registry

    try:
        return Cluster(engine=engine, kinds=registry.engine(engine).kinds)
    except KeyError:
        names = ", ".join(one.name for one in registry.ENGINES)
        raise UsageError(f"--engine: {engine} is not known; known are {names}") from None


# --- measuring ---


def _measured(
    options: argparse.Namespace, cells: Sequence[reach.Cell]
) -> dict[reach.Cell, reach.Measured]:
    """Each cell by a real connection from its source's pod."""
    if options.filename:
        raise UsageError("--measure needs a running lab; files have no pods that send")
    if options.protocol == "SCTP" or any(cell.port.protocol == "SCTP" for cell in cells):
        raise UsageError("--measure: TCP and UDP can be measured, SCTP cannot")
    from kubewire.lab.handle import RunningLab
    from kubewire.lab.state import running
    from kubewire.scenarios.engine.scene.reaching import Attempt, measure

    state, record = running(options.name)
    attempts = {
        cell: Attempt(f"pod:{cell.source}", cell.address, cell.port.number, cell.port.protocol)
        for cell in cells
    }
    lab = RunningLab(state, record)
    outcomes = measure(lab, list(attempts.values()))
    # A packet may be lost on a busy machine: what differs is asked once more.
    again = [one for cell, one in attempts.items() if not _compared(cell, outcomes[one]).agrees]
    outcomes |= measure(lab, again)
    return {cell: _compared(cell, outcomes[one]) for cell, one in attempts.items()}


def _compared(cell: reach.Cell, outcome: Outcome) -> reach.Measured:
    """A refusal is an answer of the destination, so the packet got there."""
    reached = {".": True, "r": True, "X": False}.get(outcome.mark)
    return reach.Measured(cell, reached, str(outcome))


def _comparison(measured: Mapping[reach.Cell, reach.Measured]) -> str:
    wrong = [one for one in measured.values() if not one.agrees]
    lines = [
        f"{one.cell.source} -> {one.cell.destination} {one.cell.port}: predicted "
        f"{'allowed' if one.cell.verdict.allowed else 'denied'}, measured {one.text}\n"
        f"    {one.cell.verdict}"
        for one in wrong
    ]
    lines.append(f"{len(measured)} connections measured, {len(wrong)} differ from the prediction")
    return "\n" + "\n".join(lines) + "\n"


# --- where the objects are from ---


def _state(options: argparse.Namespace) -> State:
    compiler = _compiled(_cluster_objects(options.filename, options.name))
    for key, problem in compiler.problems.items():
        print(f"{key}: {problem}", file=sys.stderr)
    return compiler.state


def _cluster_objects(paths: Sequence[str] | None, name: str) -> list[Mapping[str, Any]]:
    if paths:
        return _with_pods(_read(paths))
    from kubewire.lab.state import running

    state, _ = running(name)
    return asyncio.run(_of_lab(str(state.kubeconfig)))


def _read(paths: Sequence[str]) -> list[files.Found]:
    try:
        return files.read(paths, sys.stdin.read() if "-" in paths else "")
    except files.FileError as error:
        raise UsageError(str(error)) from error


def _with_pods(found: Sequence[files.Found]) -> list[Mapping[str, Any]]:
    """The pods that files have or describe, and their other objects."""
    return [*files.pods(found), *(one.obj for one in found if one.obj["kind"] != "Pod")]


async def _of_lab(kubeconfig: str) -> list[Mapping[str, Any]]:
    """What the compiler can read; kinds that the lab does not serve are left out."""
    from kubewire.components.kubeapi.client import ApiError, Client

    found: list[Mapping[str, Any]] = []
    resources = [*CORE.values(), *(kind.resource for kind in POLICIES)]
    async with Client.from_kubeconfig(kubeconfig, user_agent="kubewire-policy") as client:
        for resource in resources:
            try:
                items = (await client.list(resource)).items
            except ApiError as error:
                if error.status != 404:
                    raise UsageError(f"the lab's API server: {error}") from error
                continue
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            found += ({**kind, **item} for item in items)
    return found


def _compiled(objects: Iterable[Mapping[str, Any]]) -> Compiler:
    compiler = Compiler()
    for obj in objects:
        if key_of(obj) is not None:
            compiler.apply(dict(obj))
    return compiler


def _refuse_problems(compiler: Compiler, new: Sequence[files.Found]) -> None:
    for one in new:
        key = key_of(one.obj)
        if key is not None and (problem := compiler.problems.get(key)):
            raise UsageError(f"{one.file}: {key}: {problem}")


# --- pods ---


def _pods(state: State, namespaces: Sequence[str], *, some: bool = True) -> list[Endpoint]:
    pods = reach.pods_of(state, namespaces)
    if some and not pods:
        where = f" in {', '.join(namespaces)}" if namespaces else ""
        raise UsageError(f"there is no pod with an address{where}")
    return pods


def _place(state: State, text: str) -> Endpoint:
    """A pod, or something with an address that no policy selects."""
    text = text.removeprefix("pod:")
    wanted = text if "/" in text else f"default/{text}"
    pods = reach.pods_of(state)
    for pod in pods:
        if wanted == reach.name_of(pod) or text in pod.addresses:
            return pod
    try:
        return _outside(text)
    except ValueError:
        known = ", ".join(reach.name_of(pod) for pod in pods[:8])
        raise UsageError(f"there is no pod {wanted}; pods are {known or 'none'}") from None


def _outside(address: str) -> Endpoint:
    """Raises ValueError."""
    import ipaddress

    from kubewire.components.policy.model import EndpointKind, ObjectKey

    written = str(ipaddress.ip_address(address))
    return Endpoint(ObjectKey("", "", written), EndpointKind.POD, addresses=(written,))


def _name(place: Endpoint) -> str:
    return reach.name_of(place) if place.key.kind else place.key.name


def _shown(place: Endpoint) -> str:
    return f"{_name(place)} ({place.addresses[0]})" if place.key.kind else place.key.name


def _said(decision: Decision) -> str:
    return f"{'allowed' if decision.allowed else 'denied'}: {decision.text}"


# --- forms of output ---


def _as_dict(cell: reach.Cell, measured: Mapping[reach.Cell, reach.Measured]) -> dict[str, Any]:
    found = {
        "source": cell.source,
        "destination": cell.destination,
        "port": cell.port.number,
        "protocol": cell.port.protocol,
        "allowed": cell.verdict.allowed,
        "egress": cell.verdict.egress.text,
        "ingress": cell.verdict.ingress.text,
    }
    return found | ({"measured": measured[cell].text} if measured else {})


def _as_csv(found: Sequence[reach.Cell], measured: Mapping[reach.Cell, reach.Measured]) -> str:
    text = io.StringIO()
    columns = ["source", "destination", "port", "protocol", "allowed", "egress", "ingress"]
    columns += ["measured"] if measured else []
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_as_dict(cell, measured) for cell in found)
    return text.getvalue()
