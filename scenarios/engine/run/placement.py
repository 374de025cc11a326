"""Decides where each case runs: here, on another kernel, or not at all and for which reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import CaseResult
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.render.jsonfile import RESULTS_FILE, passed_before


@dataclass(frozen=True)
class Placement:
    """Where cases run. elsewhere: name of the place -> cases."""

    here: list[Case] = field(default_factory=list)
    elsewhere: dict[str, list[Case]] = field(default_factory=dict)
    skipped: list[CaseResult] = field(default_factory=list)


def place(cases: Sequence[Case], options: RunOptions) -> Placement:
    """Puts every case into exactly one of the three groups."""
    before = passed_before(options.results / RESULTS_FILE) if options.resume else {}
    placed = Placement()
    for case in cases:
        missing = [reason for name in case.requires if (reason := options.missing(name))]
        other = _elsewhere(case, options) if missing else ""
        if before.get(case.id) == case.fingerprint:
            placed.skipped.append(skipped(case, "has passed before (--resume)"))
        elif other:
            placed.elsewhere.setdefault(other, []).append(case)
        elif missing:
            placed.skipped.append(skipped(case, _cannot(case, missing, options)))
        else:
            placed.here.append(case)
    return placed


def skipped(case: Case, reason: str) -> CaseResult:
    """The result of a case that does not run."""
    return CaseResult(case, "skipped", 0.0, reason=reason)


def _elsewhere(case: Case, options: RunOptions) -> str:
    return options.elsewhere.place(case) if options.elsewhere and options.delegate else ""


def _cannot(case: Case, missing: Sequence[str], options: RunOptions) -> str:
    advice = options.elsewhere.advice(case) if options.elsewhere else ""
    how = f"; to run it in a virtual machine: {advice}" if advice else ""
    return f"this machine cannot run it: {'; '.join(missing)}{how}"
