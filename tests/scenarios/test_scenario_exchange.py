"""Events as lines of JSON: what is read is what was written, and what is no event is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kubewire.scenarios.engine.events.exchange import decode, encode
from kubewire.scenarios.engine.events.results import (
    CaptureResult,
    CaseFinished,
    CaseResult,
    CaseStarted,
    Event,
    Evidence,
    ExpectationResult,
    LabFailed,
    LabReady,
    LabStarting,
    LabStopped,
    StepFinished,
    StepResult,
    StepStarted,
)
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.loader import load
from tests.scenarios.test_scenario_reports import sightings

_TEXT = "name: x\ntitle: t\nsteps:\n  - expect: {name: it answers, from: worker-1, http: 'http://web/'}\n"


@pytest.fixture
def case(tmp_path: Path):
    file = tmp_path / "x.scenario.yaml"
    file.write_text(_TEXT)
    return load(file)[0]


def events(case) -> list[Event]:
    (step,) = case.variant.steps
    seen = Evidence("worker-1", "web", True, "curl", "200", latency=0.25, sightings=sightings())
    expectation = ExpectationResult(step.expectations[0], "passed", (seen,), 0.5)
    result = StepResult(step, "passed", 0.5, "", "", (expectation,))
    capture = CaptureResult("way", "captures/way.pcapng", ("a", "b"), sightings(), 3)
    spec = LabSpec.parse({"kubernetes": False, "topology": {"workers": 2, "links": {"bandwidth": 10}}})
    return [
        LabStarting("run-1", spec, 2),
        LabReady("run-1", spec, 1.5),
        LabFailed("run-1", spec, "no"),
        LabStopped("run-1", 0.1),
        CaseStarted(case, "run-1", 1, 2),
        StepStarted(case, step, 1, 1),
        StepFinished(case, result, 1),
        CaseFinished(CaseResult(case, "passed", 2.0, (result,), (capture,), namespace="x")),
    ]


def test_what_is_read_is_what_was_written(case) -> None:
    for event in events(case):
        line = encode(event)
        assert "\n" not in line
        assert encode(decode(line, {case.id: case})) == line
        assert type(decode(line, {case.id: case})) is type(event)


def test_the_readers_own_case_stands_for_the_one_that_was_told(case) -> None:
    mine = replace(case)
    told = decode(encode(CaseStarted(case, "run-1", 1, 2)), {case.id: mine})
    assert isinstance(told, CaseStarted)
    assert told.case is mine


@pytest.mark.parametrize(
    "change",
    [
        {"event": "Nothing"},
        {"fields": []},
        {"fields": {"case": "another", "lab": "l", "number": 1, "total": 1}},
        {"fields": {"case": "x", "lab": 7, "number": 1, "total": 1}},
        {"fields": {"case": "x", "lab": "l", "number": "1", "total": 1}},
        {"fields": {"case": "x", "lab": "l", "number": 1, "total": 1, "more": 1}},
        {"fields": {"case": "x"}},
    ],
    ids=["no event", "no fields", "a case of nobody", "a number for a name", "a text", "too much", "too little"],
)
def test_what_is_no_event_is_refused(case, change) -> None:
    told = json.loads(encode(CaseStarted(case, "l", 1, 1))) | change
    with pytest.raises((LookupError, TypeError, ValueError)):
        decode(json.dumps(told), {case.id: case})
