"""Writes results.json: all results of a run, for programs and for --resume.

It is written after each case, so that an interrupted run can be resumed. Form: {"version": 1,
"summary": {...}, "cases": [{"id", "status", "seconds", "fingerprint", "steps": [{"expectations":
[{"evidence": [...]}]}]}]}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kubewire.scenarios.engine.events.results import (
    CaptureResult,
    CaseFinished,
    CaseResult,
    Event,
    Evidence,
    ExpectationResult,
    RunFinished,
    RunStarted,
    Status,
    StepResult,
)
from kubewire.scenarios.engine.packets.decode import summary

RESULTS_FILE = "results.json"
VERSION = 1


def passed_before(path: Path) -> dict[str, str]:
    """Case id -> fingerprint, for all cases that have passed; {} if there is no readable file."""
    try:
        data = json.loads(path.read_text())
        if data["version"] != VERSION:
            return {}
        passed = [case for case in data["cases"] if case["status"] == "passed"]
        return {case["id"]: case["fingerprint"] for case in passed}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class JsonFile:
    """Writes the file. Keeps the earlier results of cases that --resume skips."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RESULTS_FILE
        self.cases: dict[str, dict[str, Any]] = {}
        self.before: dict[str, dict[str, Any]] = {}

    def handle(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.before = self._earlier()
            case CaseFinished(result):
                self.cases[result.case.id] = case_dict(result)
                self._write({})
            case RunFinished(result):
                for one in result.cases:
                    resumed = one.status == "skipped" and "--resume" in one.reason
                    if resumed and one.case.id in self.before:
                        self.cases[one.case.id] = self.before[one.case.id]
                    else:
                        self.cases[one.case.id] = case_dict(one)
                statuses: tuple[Status, ...] = ("passed", "failed", "error", "skipped")
                counts: dict[str, int] = {status: result.count(status) for status in statuses}
                self._write(
                    {
                        **counts,
                        "seconds": round(result.seconds, 3),
                        "interrupted": result.interrupted,
                    }
                )
            case _:
                pass

    def _earlier(self) -> dict[str, dict[str, Any]]:
        try:
            return {case["id"]: case for case in json.loads(self.path.read_text())["cases"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write(self, summary_: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Until the run ends, the results of an earlier run for other cases are kept.
        cases = self.cases if summary_ else {**self.before, **self.cases}
        data = {"version": VERSION, "summary": summary_, "cases": list(cases.values())}
        unfinished = self.path.with_suffix(".json.new")
        unfinished.write_text(json.dumps(data, indent=1))
        unfinished.replace(self.path)


def case_dict(result: CaseResult) -> dict[str, Any]:
    """One case as JSON."""
    case = result.case
    return {
        "id": case.id,
        "scenario": case.scenario.name,
        "variant": case.variant.name,
        "title": case.scenario.title,
        "topic": case.scenario.topic,
        "file": str(case.scenario.file),
        "matrix": dict(case.cell),
        "lab": case.lab.as_dict(),
        "fingerprint": case.fingerprint,
        "status": result.status,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "steps": [_step(step) for step in result.steps],
        "captures": [_capture(capture) for capture in result.captures],
    }


def _step(result: StepResult) -> dict[str, Any]:
    return {
        "action": result.step.action,
        "name": result.step.name,
        "where": result.step.where,
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "message": result.message,
        "output": result.output,
        "expectations": [_expectation(one) for one in result.expectations],
    }


def _expectation(result: ExpectationResult) -> dict[str, Any]:
    return {
        "name": result.title,
        "verb": result.expectation.verb,
        "where": result.expectation.where,
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "message": result.message,
        "evidence": [_evidence(one) for one in result.evidence],
    }


def _evidence(item: Evidence) -> dict[str, Any]:
    packets = []
    for one in item.sightings:
        packets.append({"interface": one.point, "time": one.time, "packet": summary(one.packet)})
    series = {}
    if item.chart:
        series = {line.name: [list(point) for point in line.points] for line in item.chart.lines}
    return {
        "from": item.source,
        "to": item.target,
        "holds": item.holds,
        "command": item.command,
        "seen": item.seen,
        "why": item.why,
        "detail": item.detail,
        "latency": item.latency,
        "tries": item.tries,
        "seconds": round(item.seconds, 3),
        "packets": packets,
        "series": series,
    }


def _capture(capture: CaptureResult) -> dict[str, Any]:
    return {
        "name": capture.name,
        "file": capture.file,
        "interfaces": list(capture.points),
        "packets": capture.total,
        "dropped": capture.dropped,
    }
