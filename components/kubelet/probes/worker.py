"""Runs the probes of a pod: one task per probe, started and stopped with its container."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.probes import actions
from kubewire.components.kubelet.probes.actions import Exec
from kubewire.components.kubelet.probes.http import ProbeResult
from kubewire.components.kubelet.probes.state import ProbeSpec, ProbeState, begin, observe
from kubewire.components.kubelet.records import ContainerRecord, ProbeView

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container

#: Seconds within which upstream's kubelet notices a started container (the relist period of its PLEG),
#: and before which none of its probes runs. A container has that time to begin.
RELIST_PERIOD = 1.0

#: The delays between early tries of a readiness or startup probe. This kubelet notices a started
#: container at once, so it tries quickly for RELIST_PERIOD, and failures of these tries do not count.
#: A liveness probe has nothing to gain from an early success, and waits.
EARLY = (0.03, 0.05, 0.1, 0.2, 0.3, 0.4)

_TITLES = {"readiness": "Readiness", "liveness": "Liveness", "startup": "Startup"}


@dataclass(frozen=True)
class Report:
    """The event for a probe that failed or succeeded with a warning."""

    container: str
    reason: str
    message: str


class Prober:
    """The probes of a pod. changed() is called when a verdict has changed, report() for events."""

    def __init__(
        self,
        session: Callable[[], aiohttp.ClientSession],
        pod_ip: Callable[[], str],
        execute: Callable[[ContainerRecord], Exec],
        changed: Callable[[], None],
        report: Callable[[Report], None],
        counted: Callable[[str, bool], None] = lambda kind, success: None,
    ) -> None:
        self._session = session
        self._pod_ip = pod_ip
        self._execute = execute
        self._changed = changed
        self._report = report
        self._counted = counted
        self._states: dict[tuple[str, str], ProbeState] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._started: dict[str, asyncio.Event] = {}

    def view(self) -> ProbeView:
        """The verdicts of all probes."""
        states = self._states.items()
        verdicts = {key: state.verdict for key, state in states if state.verdict is not None}
        by_kind = {
            kind: {name: verdict for (name, own), verdict in verdicts.items() if own == kind}
            for kind in ("startup", "readiness", "liveness")
        }
        return ProbeView(by_kind["startup"], by_kind["readiness"], by_kind["liveness"])

    def start(self, container: Container, record: ContainerRecord, now: float) -> None:
        """Starts the probes of a container that has just started or was adopted."""
        name = record.name
        self.stop(name)
        self._started[name] = asyncio.Event()
        probes = pods.probes(container)
        if "startup" not in probes:
            self._started[name].set()
        for kind, probe in probes.items():
            spec = ProbeSpec.of(kind, probe)
            self._states[name, kind] = begin(spec)
            work = self._run(container, record, spec, now - record.started_at)
            task = asyncio.create_task(work, name=f"{kind} probe of {name}")
            self._tasks[name, kind] = task

    def stop(self, name: str) -> None:
        for kind in ("startup", "readiness", "liveness"):
            if task := self._tasks.pop((name, kind), None):
                task.cancel()
            self._states.pop((name, kind), None)

    def stop_all(self) -> None:
        for name in {name for name, _ in self._tasks}:
            self.stop(name)

    def stop_killing(self) -> None:
        """Stops liveness and startup probes when the pod is being ended; readiness probes go on."""
        for (_, kind), task in self._tasks.items():
            if kind != "readiness":
                task.cancel()

    async def _run(
        self,
        container: Container,
        record: ContainerRecord,
        spec: ProbeSpec,
        age: float,
    ) -> None:
        """Probes a container until the probe is on hold, or is a startup probe that succeeded.

        age: seconds since the container started.
        """
        clock = asyncio.get_running_loop().time
        started = clock() - age
        if spec.kind != "startup":
            await self._started[record.name].wait()
        first = (
            max(spec.initial_delay, RELIST_PERIOD)
            if spec.kind == "liveness"
            else spec.initial_delay
        )
        age = clock() - started
        if (wait := first - age) > 0:
            await asyncio.sleep(wait)
        elif (
            spec.kind != "liveness"
            and age < RELIST_PERIOD
            and await self._early(container, record, spec)
        ):
            if spec.kind == "startup":
                return
            await asyncio.sleep(spec.period)
        while True:
            result = await self._probe(container, record, spec)
            self._observe(record, spec, result)
            state = self._states[record.name, spec.kind]
            if state.on_hold or (spec.kind == "startup" and state.verdict):
                return
            await asyncio.sleep(spec.period)

    async def _early(
        self,
        container: Container,
        record: ContainerRecord,
        spec: ProbeSpec,
    ) -> bool:
        """Tries a few times quickly; returns whether a try has succeeded."""
        for delay in EARLY:
            result = await self._probe(container, record, spec)
            if result.success:
                self._observe(record, spec, result)
                return True
            await asyncio.sleep(delay)
        return False

    async def _probe(
        self,
        container: Container,
        record: ContainerRecord,
        spec: ProbeSpec,
    ) -> ProbeResult:
        session = self._session()
        return await actions.run(spec, container, self._pod_ip(), session, self._execute(record))

    def _observe(self, record: ContainerRecord, spec: ProbeSpec, result: ProbeResult) -> None:
        key = (record.name, spec.kind)
        before = self._states[key]
        after = observe(spec, before, result.success)
        self._states[key] = after
        self._counted(spec.kind, result.success)
        title = _TITLES[spec.kind]
        if not result.success:
            text = f"{title} probe failed: {result.output}"
            self._report(Report(record.name, "Unhealthy", text))
        elif result.warning:
            text = f"{title} probe warning: {result.output}"
            self._report(Report(record.name, "ProbeWarning", text))
        if spec.kind == "startup" and after.verdict:
            self._started[record.name].set()
        if after.verdict != before.verdict:
            self._changed()
