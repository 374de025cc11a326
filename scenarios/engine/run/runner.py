"""Runs many cases: starts their labs, runs the cases in them, and returns the results.

A lab takes seconds to start and a case often less, so cases with equal lab files share a lab: they
run in it one after another, each in a namespace of its own. A case marked `isolated` gets a lab to
itself, because it changes something that cannot be undone. With `--jobs N`, up to N labs run at the
same time.

What happens is reported as events (events/results.py) to renderers, which write the terminal's
output and the reports. Every case gets exactly one result, whatever happens: a lab that does not
start gives each of its cases the result "error", and an interrupted run reports the remaining cases
as skipped.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import (
    CaseResult,
    LabFailed,
    LabReady,
    LabStarting,
    LabStopped,
    RunFinished,
    RunResult,
    RunStarted,
)
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.keyword import KeywordError, matches
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.handle import LabFactory, LabHandle
from kubewire.scenarios.engine.loader import load_all
from kubewire.scenarios.engine.render import Renderer, renderers
from kubewire.scenarios.engine.run.case import CaseRun
from kubewire.scenarios.engine.run.elsewhere import run_elsewhere
from kubewire.scenarios.engine.run.groups import Group, group, slugs
from kubewire.scenarios.engine.run.keeping import Keeper
from kubewire.scenarios.engine.run.placement import place, skipped
from kubewire.scenarios.engine.run.progress import Progress
from kubewire.scenarios.engine.run.signals import signals_raise
from kubewire.scenarios.engine.run.steps.stage import Stage
from kubewire.scenarios.engine.scene.api import Cluster, NoCluster
from kubewire.scenarios.engine.scene.scene import Interrupted, Scene

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_BAD_FILE = 2
EXIT_INTERRUPTED = 130


def run(files: Sequence[Path], lab_factory: LabFactory, options: RunOptions) -> int:
    """Runs the cases of files. Returns the exit code: 0 if all passed or were skipped, 1 if some
    did not, 2 if a file is wrong, 130 if the run was interrupted."""
    try:
        cases = chosen(files, options)
    except (SpecError, KeywordError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_FILE
    if options.list_only:
        print("\n".join(_listing(cases)))
        return EXIT_PASSED
    if not cases:
        print(
            "no scenario matches; kubewire run -l lists the scenarios of the catalogue",
            file=sys.stderr,
        )
        return EXIT_BAD_FILE
    result = Run(cases, lab_factory, options, renderers(options)).run()
    if result.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if result.count("failed") + result.count("error") else EXIT_PASSED


def chosen(files: Sequence[Path], options: RunOptions) -> list[Case]:
    """The cases that the options select. Raises SpecError, KeywordError, OSError."""
    cases = [case for case in load_all(files) if matches(options.keyword, case)]
    return [case for case in cases if not options.only or case.id in options.only]


def _listing(cases: Sequence[Case]) -> Iterator[str]:
    width = max((len(case.id) for case in cases), default=0)
    for case in cases:
        title = case.variant.title or case.scenario.title
        yield f"{case.id:<{width}}  {case.scenario.topic}: {title}  ({case.lab.label()})"


@dataclass
class Run:
    """One run of many cases. wait_for_user: asks the user for --keep (default: on the terminal)."""

    cases: Sequence[Case]
    factory: LabFactory
    options: RunOptions
    renderers: Sequence[Renderer]
    wait_for_user: Callable[[str], None] | None = None
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(len(self.cases), self.renderers)
        self._keeper = Keeper(self.progress, self.wait_for_user)
        self._slugs = slugs(self.cases)

    def run(self) -> RunResult:
        """Runs all cases and writes the reports."""
        began = time.monotonic()
        interrupted = False
        placed = place(self.cases, self.options)
        self.progress.results += placed.skipped
        groups = group(placed.here)
        self.progress.tell(RunStarted(tuple(self.cases), len(groups)))
        with signals_raise():
            try:
                self._run_groups(groups)
                run_elsewhere(placed.elsewhere, self.options, self.progress)
            except Interrupted:
                interrupted = True
        done = {result.case.id: result for result in self.progress.results}
        ordered = [done.get(case.id) or skipped(case, "not run") for case in self.cases]
        result = RunResult(tuple(ordered), time.monotonic() - began, len(groups), interrupted)
        self.progress.tell(RunFinished(result))
        return result

    def _run_groups(self, groups: Sequence[Group]) -> None:
        if self.options.jobs == 1 or len(groups) < 2:
            for item in groups:
                if not self.progress.stopping.is_set():
                    self._run_group(item)
            return
        queue: SimpleQueue[Group] = SimpleQueue()
        for item in groups:
            queue.put(item)
        # Leaving the pool waits for its threads. Thread.join would not be reliable: once a signal's
        # exception has interrupted it, it treats the thread as ended
        # (https://github.com/python/cpython/issues/90882).
        with ThreadPoolExecutor(min(self.options.jobs, len(groups))) as pool:
            try:
                working = [pool.submit(self._work, queue) for _ in range(self.options.jobs)]
                for one in working:
                    one.result()
            except Interrupted:
                self.progress.stopping.set()
                self.progress.interrupted.set()
                raise

    def _work(self, queue: SimpleQueue[Group]) -> None:
        while not self.progress.stopping.is_set():
            try:
                item = queue.get_nowait()
            except Empty:
                return
            with contextlib.suppress(Interrupted):
                self._run_group(item)

    def _run_group(self, item: Group) -> None:
        began = time.monotonic()
        name = f"run-{os.getpid()}-{item.name}"  # several runs may use one machine at the same time
        self.progress.tell(LabStarting(name, item.spec, len(item.cases)))
        try:
            with self.factory(item.spec, name) as lab:
                self.progress.tell(LabReady(name, item.spec, time.monotonic() - began))
                self._run_cases(item, lab)
                stopping = time.monotonic()
        except Exception as error:  # any error here concerns only the cases of this lab
            self.progress.tell(LabFailed(name, item.spec, f"{error}"))
            reason = f"the lab did not come up: {error}"
            for case in self.progress.unfinished(item.cases):
                self.progress.finish(CaseResult(case, "error", 0.0, reason=reason))
            return
        self.progress.tell(LabStopped(name, time.monotonic() - stopping))

    def _run_cases(self, item: Group, lab: LabHandle) -> None:
        cluster = Cluster.of(lab.kubeconfig) if item.spec.kubernetes else NoCluster()
        for case in item.cases:
            if self.progress.stopping.is_set():
                return
            self.progress.begin(case, lab.name)
            result = self._run_case(case, lab, cluster)
            self.progress.finish(result)
            if result.status in ("failed", "error"):
                if self.options.keep:
                    self._keeper.keep(lab, result)
                if self.options.stop_at_first:
                    self.progress.stopping.set()

    def _run_case(self, case: Case, lab: LabHandle, cluster: Cluster) -> CaseResult:
        name = self._slugs[case.id]
        scene = Scene(
            lab,
            cluster,
            name,
            name,
            deadline=time.monotonic() + case.scenario.timeouts.case,
            interrupted=self.progress.interrupted,
        )
        stage = Stage(scene, case, [])
        return CaseRun(stage, self.progress.tell, self.options.results, self.options.keep).run()
