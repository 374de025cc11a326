"""Cases that run on another kernel: their events come back and are told as if they had happened here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import CaseFinished, CaseResult, CaseStarted, Event
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.run.progress import Progress
from kubewire.scenarios.engine.scene.scene import Interrupted


def run_elsewhere(delegated: Mapping[str, Sequence[Case]], options: RunOptions, progress: Progress) -> None:
    """Runs one place after another, or several at a time when jobs allow."""
    if not delegated:
        return
    with ThreadPoolExecutor(min(options.jobs, len(delegated)), "elsewhere") as pool:
        running = [pool.submit(_run_at, place, cases, options, progress) for place, cases in delegated.items()]
        try:
            while any(not one.done() for one in running):
                wait(running, 0.2)  # with a timeout, so that signals get through
        except Interrupted:
            progress.stopping.set()
            raise
        for one in running:
            one.result()


def _run_at(place: str, cases: Sequence[Case], options: RunOptions, progress: Progress) -> None:
    """A case of which no result comes back is an error."""
    assert options.elsewhere is not None
    why = "it ended without a result"

    def tell(event: Event) -> None:
        _told(event, options, progress)

    try:
        if not progress.stopping.is_set():
            options.elsewhere.run(place, cases, options.results, tell, progress.stopping)
    except (OSError, RuntimeError, TimeoutError) as error:
        why = str(error)
    if progress.stopping.is_set():
        return
    for case in progress.unfinished(cases):
        progress.finish(CaseResult(case, "error", 0.0, reason=f"{place}: {why}"))


def _told(event: Event, options: RunOptions, progress: Progress) -> None:
    match event:
        case CaseFinished(result):
            progress.finish(result)
            if options.stop_at_first and result.status in ("failed", "error"):
                progress.stopping.set()
        case CaseStarted(case, lab):
            progress.begin(case, lab)
        case _:
            progress.tell(event)
