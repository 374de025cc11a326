"""Runs cases on another kernel, in a virtual machine, and reports their events as if the cases had
run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import CaseFinished, CaseResult, CaseStarted, Event
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.run.progress import Progress
from kubewire.scenarios.engine.scene.scene import Interrupted


def run_elsewhere(
    delegated: Mapping[str, Sequence[Case]],
    options: RunOptions,
    progress: Progress,
) -> None:
    """Runs the cases of each place, at most options.jobs places at the same time."""
    if not delegated:
        return
    with ThreadPoolExecutor(min(options.jobs, len(delegated)), "elsewhere") as pool:
        running = []
        for place, cases in delegated.items():
            running.append(pool.submit(_run_at, place, cases, options, progress))
        try:
            while any(not one.done() for one in running):
                wait(running, 0.2)  # a wait without timeout would delay the signal handlers
        except Interrupted:
            progress.stopping.set()
            raise
        for one in running:
            one.result()


def _run_at(place: str, cases: Sequence[Case], options: RunOptions, progress: Progress) -> None:
    """Runs cases at one place. A case that comes back without a result is an error."""
    assert options.elsewhere is not None
    why = "it ended without a result"

    def tell(event: Event) -> None:
        _pass_on(event, options, progress)

    try:
        if not progress.stopping.is_set():
            options.elsewhere.run(place, cases, options.results, tell, progress.stopping)
    except (OSError, RuntimeError, TimeoutError) as error:
        why = str(error)
    if progress.stopping.is_set():
        return
    for case in progress.unfinished(cases):
        progress.finish(CaseResult(case, "error", 0.0, reason=f"{place}: {why}"))


def _pass_on(event: Event, options: RunOptions, progress: Progress) -> None:
    match event:
        case CaseFinished(result):
            progress.finish(result)
            if options.stop_at_first and result.status in ("failed", "error"):
                progress.stopping.set()
        case CaseStarted(case, lab):
            progress.begin(case, lab)
        case _:
            progress.tell(event)
