"""Runs cases: brings labs up, shares them, runs the steps, tells renderers, cleans up whatever happens.

Cases with an equal lab share one lab, one after another, each in a namespace of its own (a case marked isolated
has a lab to itself). Labs run side by side when jobs allow.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.kubeapi.resources import NAMESPACES
from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import (
    CaptureResult,
    CaseFinished,
    CaseResult,
    CaseStarted,
    Event,
    LabFailed,
    LabKept,
    LabReady,
    LabStarting,
    LabStopped,
    RunFinished,
    RunResult,
    RunStarted,
    Status,
    StepFinished,
    StepResult,
    StepStarted,
)
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.keyword import KeywordError, matches
from kubewire.scenarios.engine.file.loader import load_all
from kubewire.scenarios.engine.file.model import Case, Step
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.handle import LabFactory, LabHandle
from kubewire.scenarios.engine.packets import pcapng
from kubewire.scenarios.engine.packets.capturing import RunningCapture, sightings
from kubewire.scenarios.engine.render import Renderer, renderers
from kubewire.scenarios.engine.render.jsonfile import RESULTS_FILE, passed_before
from kubewire.scenarios.engine.run.steps import Stage, StepFailed, apply_objects, perform, ready, restore_link, usable
from kubewire.scenarios.engine.scene.api import ApiError, Cluster, NoCluster
from kubewire.scenarios.engine.scene.scene import Interrupted, NotYet, Scene, SceneError

EXIT_PASSED, EXIT_FAILED, EXIT_BAD_FILE, EXIT_INTERRUPTED = 0, 1, 2, 130
PREPARE = Step("prepare", None, name="Preparation")


def run(files: Sequence[Path], lab_factory: LabFactory, options: RunOptions) -> int:
    """0: all passed or were skipped, 1: some did not, 2: a file is wrong, 130: interrupted."""
    try:
        cases = chosen(files, options)
    except (SpecError, KeywordError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_FILE
    if options.list_only:
        print("\n".join(_listing(cases)))
        return EXIT_PASSED
    if not cases:
        print("no scenario matches", file=sys.stderr)
        return EXIT_BAD_FILE
    result = Run(cases, lab_factory, options, renderers(options)).run()
    if result.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if result.count("failed") + result.count("error") else EXIT_PASSED


def chosen(files: Sequence[Path], options: RunOptions) -> list[Case]:
    """The cases that options ask for. Raises SpecError, KeywordError, OSError."""
    cases = [case for case in load_all(files) if matches(options.keyword, case)]
    return [case for case in cases if not options.only or case.id in options.only]


def _listing(cases: Sequence[Case]) -> Iterator[str]:
    width = max((len(case.id) for case in cases), default=0)
    for case in cases:
        title = case.variant.title or case.scenario.title
        yield f"{case.id:<{width}}  {case.scenario.topic}: {title}  ({case.lab.label()})"


@dataclass(frozen=True)
class Group:
    """Cases that share a lab."""

    name: str
    spec: LabSpec
    cases: tuple[Case, ...]


def group(cases: Sequence[Case]) -> list[Group]:
    """By lab, in the order of the cases; an isolated case stands alone."""
    shared: dict[LabSpec, list[Case]] = {}
    groups: list[tuple[LabSpec, list[Case]]] = []
    for case in cases:
        if case.scenario.isolated:
            groups.append((case.lab, [case]))
        elif case.lab in shared:
            shared[case.lab].append(case)
        else:
            shared[case.lab] = [case]
            groups.append((case.lab, shared[case.lab]))
    return [Group(str(number), spec, tuple(members)) for number, (spec, members) in enumerate(groups, 1)]


def slug(case: Case, taken: set[str]) -> str:
    """A name for namespaces and files: letters, digits and "-", 50 at most, unique among the taken."""
    base = re.sub(r"[^a-z0-9]+", "-", case.id.lower()).strip("-")[:50].strip("-")
    name, number = base, 2
    while name in taken:
        name, number = f"{base[:47]}-{number}", number + 1
    taken.add(name)
    return name


@dataclass
class Run:
    """One run of many cases."""

    cases: Sequence[Case]
    factory: LabFactory
    options: RunOptions
    renderers: Sequence[Renderer]
    wait_for_user: Callable[[str], None] | None = None
    results: list[CaseResult] = field(default_factory=list)
    #: No further case is begun.
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Cases under way end as well.
    interrupted: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0
    _slugs: dict[str, str] = field(default_factory=dict)

    def tell(self, event: Event) -> None:
        """To all renderers, one event at a time."""
        with self._lock:
            for renderer in self.renderers:
                renderer.handle(event)

    def run(self) -> RunResult:
        """Everything, from the first lab to the reports."""
        began, interrupted = time.monotonic(), False
        taken: set[str] = set()
        self._slugs = {case.id: slug(case, taken) for case in self.cases}
        todo, delegated = self._without_skipped()
        groups = group(todo)
        self.tell(RunStarted(tuple(self.cases), len(groups)))
        with _signals_raise():
            try:
                self._run_groups(groups)
                self._run_elsewhere(delegated)
            except Interrupted:
                interrupted = True
        done = {result.case.id: result for result in self.results}
        ordered = [done.get(case.id) or _skipped(case, "not run") for case in self.cases]
        result = RunResult(tuple(ordered), time.monotonic() - began, len(groups), interrupted)
        self.tell(RunFinished(result))
        return result

    def _without_skipped(self) -> tuple[list[Case], dict[str, list[Case]]]:
        """What runs here, and what runs elsewhere, by place; the rest is skipped with the reason."""
        before = passed_before(self.options.results / RESULTS_FILE) if self.options.resume else {}
        todo: list[Case] = []
        delegated: dict[str, list[Case]] = {}
        for case in self.cases:
            missing = [reason for name in case.requires if (reason := self.options.missing(name))]
            place = self._place(case) if missing else ""
            if before.get(case.id) == case.fingerprint:
                self.results.append(_skipped(case, "passed before (--resume)"))
            elif place:
                delegated.setdefault(place, []).append(case)
            elif missing:
                self.results.append(_skipped(case, self._cannot(case, missing)))
            else:
                todo.append(case)
        return todo, delegated

    def _place(self, case: Case) -> str:
        return self.options.elsewhere.place(case) if self.options.elsewhere and self.options.delegate else ""

    def _cannot(self, case: Case, missing: Sequence[str]) -> str:
        advice = self.options.elsewhere.advice(case) if self.options.elsewhere else ""
        return f"this machine cannot: {'; '.join(missing)}" + (f"; this can: {advice}" if advice else "")

    def _run_elsewhere(self, delegated: Mapping[str, Sequence[Case]]) -> None:
        """Place by place, or, with several jobs, at the same time."""
        if not delegated:
            return
        with ThreadPoolExecutor(min(self.options.jobs, len(delegated)), "elsewhere") as pool:
            running = [pool.submit(self._run_at, place, cases) for place, cases in delegated.items()]
            try:
                while any(not one.done() for one in running):
                    wait(running, 0.2)  # with a timeout, so that signals get through
            except Interrupted:
                self.stopping.set()
                raise
            for one in running:
                one.result()

    def _run_at(self, place: str, cases: Sequence[Case]) -> None:
        """Cases of which nothing came back did not pass."""
        assert self.options.elsewhere is not None
        why = "it ended without a result"
        try:
            if not self.stopping.is_set():
                self.options.elsewhere.run(place, cases, self.options.results, self._told, self.stopping)
        except (OSError, RuntimeError, TimeoutError) as error:
            why = str(error)
        if self.stopping.is_set():
            return
        done = {result.case.id for result in self.results}
        for case in cases:
            if case.id not in done:
                self._finish(CaseResult(case, "error", 0.0, reason=f"{place}: {why}"))

    def _told(self, event: Event) -> None:
        """An event from elsewhere, as if it had happened here."""
        if isinstance(event, CaseFinished):
            self._finish(event.result)
            if self.options.stop_at_first and event.result.status in ("failed", "error"):
                self.stopping.set()
            return
        if isinstance(event, CaseStarted):
            with self._lock:
                self._number += 1
                event = replace(event, number=self._number, total=len(self.cases))
        self.tell(event)

    def _run_groups(self, groups: Sequence[Group]) -> None:
        if self.options.jobs == 1 or len(groups) < 2:
            for item in groups:
                if not self.stopping.is_set():
                    self._run_group(item)
            return
        queue: SimpleQueue[Group] = SimpleQueue()
        for item in groups:
            queue.put(item)
        # Leaving the pool waits for its threads. (Thread.join cannot be used here: one that a signal's exception
        # has interrupted takes its thread for ended from then on, https://github.com/python/cpython/issues/90882.)
        with ThreadPoolExecutor(min(self.options.jobs, len(groups))) as pool:
            try:
                working = [pool.submit(self._work, queue) for _ in range(self.options.jobs)]
                for one in working:
                    one.result()
            except Interrupted:
                self.stopping.set()
                self.interrupted.set()
                raise

    def _work(self, queue: SimpleQueue[Group]) -> None:
        while not self.stopping.is_set():
            try:
                item = queue.get_nowait()
            except Empty:
                return
            with contextlib.suppress(Interrupted):
                self._run_group(item)

    def _run_group(self, item: Group) -> None:
        began = time.monotonic()
        name = f"run-{os.getpid()}-{item.name}"  # several runs may go on at once on one machine
        self.tell(LabStarting(name, item.spec, len(item.cases)))
        try:
            with self.factory(item.spec, name) as lab:
                self.tell(LabReady(name, item.spec, time.monotonic() - began))
                self._run_cases(item, lab)
                stopping = time.monotonic()
        except Exception as error:  # whatever a lab can raise: its cases could not run, the others can
            self.tell(LabFailed(name, item.spec, f"{error}"))
            done = {result.case.id for result in self.results}
            for case in item.cases:
                if case.id not in done:
                    self._finish(CaseResult(case, "error", 0.0, reason=f"the lab did not come up: {error}"))
            return
        self.tell(LabStopped(name, time.monotonic() - stopping))

    def _run_cases(self, item: Group, lab: LabHandle) -> None:
        cluster = Cluster.of(lab.kubeconfig) if item.spec.kubernetes else NoCluster()
        for case in item.cases:
            if self.stopping.is_set():
                return
            with self._lock:
                self._number += 1
                number = self._number
            self.tell(CaseStarted(case, lab.name, number, len(self.cases)))
            result = self._run_case(case, lab, cluster)
            self._finish(result)
            if result.status in ("failed", "error"):
                if self.options.keep:
                    self._keep(lab, result)
                if self.options.stop_at_first:
                    self.stopping.set()

    def _finish(self, result: CaseResult) -> None:
        with self._lock:
            self.results.append(result)
        self.tell(CaseFinished(result))

    def _run_case(self, case: Case, lab: LabHandle, cluster: Cluster) -> CaseResult:
        began = time.monotonic()
        name = self._slugs[case.id]
        deadline = began + case.scenario.timeouts.case
        scene = Scene(lab, cluster, name, name, deadline=deadline, interrupted=self.interrupted)
        stage = Stage(scene, case, [])
        steps: list[StepResult] = []
        try:
            steps.append(self._prepare(stage))
            if steps[-1].status == "passed":
                self._run_steps(stage, steps)
        except Exception as error:  # a fault of the engine or the lab fails this case, not the others
            text = "".join(traceback.format_exception(error))
            steps.append(StepResult(PREPARE, "error", 0.0, f"{type(error).__name__}: {error}", text))
        finally:
            self._put_back(stage)
        captures = tuple(self._keep_capture(stage, capture) for capture in stage.scene.captures.values())
        if not (self.options.keep and _worst(steps) != "passed"):
            self._clean(stage)
        return CaseResult(case, _worst(steps), time.monotonic() - began, tuple(steps), captures, namespace=name)

    def _prepare(self, stage: Stage) -> StepResult:
        """Namespace, manifests, and the fixtures' pods ready."""
        began, scene, case = time.monotonic(), stage.scene, stage.case
        self.tell(StepStarted(case, PREPARE, 0, len(case.variant.steps)))
        if not case.lab.kubernetes:
            result = StepResult(PREPARE, "passed", 0.0, "nothing to prepare")
            self.tell(StepFinished(case, result, 0))
            return result
        try:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scene.namespace}}
            scene.cluster.apply(namespace, "")
            usable(scene, scene.namespace, case.scenario.timeouts.ready)
            names = apply_objects(scene, case.variant.objects)
            ready(scene, case.variant.objects, case.scenario.timeouts.ready)
            message = f"{', '.join(names)} ready" if names else "nothing to prepare"
            result = StepResult(PREPARE, "passed", time.monotonic() - began, message)
        except (StepFailed, NotYet, SceneError, ApiError, LookupError, OSError, KubeconfigError) as error:
            result = StepResult(PREPARE, "error", time.monotonic() - began, str(error))
        self.tell(StepFinished(case, result, 0))
        return result

    def _run_steps(self, stage: Stage, steps: list[StepResult]) -> None:
        case, total = stage.case, len(stage.case.variant.steps)
        for number, step in enumerate(case.variant.steps, 1):
            self.tell(StepStarted(case, step, number, total))
            if time.monotonic() > stage.scene.deadline:
                spent = f"the case took longer than {case.scenario.timeouts.case:g} s"
                result = StepResult(step, "error", 0.0, spent)
            else:
                result = perform(stage, step)
            steps.append(result)
            self.tell(StepFinished(case, result, number))
            # Later expectations would only fail again for the same reason, after waiting their whole time.
            if result.status != "passed":
                return

    def _keep_capture(self, stage: Stage, capture: RunningCapture) -> CaptureResult:
        """Stop it and write one merged file into the results."""
        capture.stop()
        merged = capture.read()
        short = capture.name.removeprefix(f"{stage.scene.slug}-")
        file = Path("captures") / f"{capture.name}.pcapng"
        target = self.options.results / file
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as stream:
            pcapng.write(stream, merged.interfaces, merged.records, f"kubewire: {stage.case.id}, capture {short}")
        seen = tuple(sightings(merged))
        return CaptureResult(short, str(file), capture.points, seen, len(seen), sum(merged.dropped))

    def _put_back(self, stage: Stage) -> None:
        """Captures end, components that a step took down run again: the next case finds the lab as it was."""
        for capture in stage.scene.captures.values():
            capture.stop()
        for name, host in stage.disturbed:
            with contextlib.suppress(Exception):  # a lab that cannot is told about by the next case
                stage.scene.lab.component(name, host, "start")
        for program in stage.programs.values():
            with contextlib.suppress(Exception):
                program.stop()
        for host, interface in list(stage.faulty):
            with contextlib.suppress(Exception):
                restore_link(stage, host, interface)

    def _clean(self, stage: Stage) -> None:
        """Asks for the case's namespace, and those among its manifests, to go; nobody waits, for the next case has
        its own."""
        if not stage.case.lab.kubernetes:
            return
        scene = stage.scene
        made = [item["metadata"]["name"] for item in stage.case.variant.objects if item["kind"] == "Namespace"]
        for name in (scene.namespace, *made):
            with contextlib.suppress(ApiError, NotYet, SceneError):
                scene.cluster.delete(NAMESPACES, scene.resolve(name))

    def _keep(self, lab: LabHandle, result: CaseResult) -> None:
        hosts = [host.name for host in lab.hosts() if host.role == "worker"][:1] or ["control-plane"]
        commands = (
            f"export KUBECONFIG={lab.kubeconfig}",
            f"kubectl get pods -o wide -n {result.namespace}",
            f"kubewire kubectl --name {lab.name} get events -A",
            f"kubewire node --name {lab.name} {hosts[0]} -- iptables-save",
            f"kubewire node --name {lab.name} {hosts[0]} -- tcpdump -ni any",
            f"ls {lab.state_dir}/logs",
        )
        with self._asking:  # one lab after another
            self.tell(LabKept(lab.name, commands))
            prompt = "Press Enter to go on, ctrl-C to end the run; the lab is torn down then. "
            (self.wait_for_user or self._wait_for_user)(prompt)

    def _wait_for_user(self, prompt: str) -> None:
        """Raises Interrupted when the run is to end, also in a thread, which no signal reaches."""
        if not sys.stdin.isatty():
            print("Not on a terminal: SIGINT ends the run and tears the lab down.", flush=True)
            self.interrupted.wait()
            raise Interrupted
        print(prompt, end="", flush=True)
        while not self.interrupted.is_set():
            if select.select([sys.stdin], [], [], 0.2)[0]:
                sys.stdin.readline()
                return
        raise Interrupted


def _worst(steps: Sequence[StepResult]) -> Status:
    order: tuple[Status, ...] = ("error", "failed", "passed")
    return next((status for status in order if any(step.status == status for step in steps)), "passed")


def _skipped(case: Case, reason: str) -> CaseResult:
    return CaseResult(case, "skipped", 0.0, reason=reason)


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted in the main thread, once; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # a second ctrl-C must not stop the clean-up
        raise Interrupted

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
