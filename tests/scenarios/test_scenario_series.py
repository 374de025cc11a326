"""series: how what is measured grows is judged, and drawn."""

from dataclasses import dataclass, replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from kubewire.scenarios.engine.events.results import CaseResult, RunResult, StepResult
from kubewire.scenarios.engine.handle import Completed
from kubewire.scenarios.engine.loader import load
from kubewire.scenarios.engine.packets.chart import Chart, Line, parse
from kubewire.scenarios.engine.render import html
from kubewire.scenarios.engine.render.jsonfile import case_dict
from kubewire.scenarios.engine.render.plot import svg
from kubewire.scenarios.engine.run.expect import evaluate
from kubewire.scenarios.engine.scene.scene import End
from tests.existing import existing

SCENARIO = """\
name: x
title: A title
description: What it is about.
lab: {kubernetes: false}
steps:
  - expect:
      from: worker-1
      series: {program: "some.module:main", args: [3, 10], x: Services, y: "time, us", growth: {walk: {min: 4}, map: {max: 2}}}
"""
PRINTED = "walk\t1000\t90\nwalk\t100\t10\nmap\t100\t8\nmap\t1000\t9\n"


@dataclass
class Program:
    done: Completed

    def wait(self, timeout):
        return self.done

    def stop(self):
        return self.done


@dataclass
class Lab:
    """Its programs print the same each time."""

    printed: str = PRINTED
    returncode: int = 0
    asked: tuple[Any, ...] = ()

    def start(self, target, *, main="", args=(), argv=()):
        self.asked = (target, main, args)
        return Program(Completed(self.returncode, self.printed.encode(), b"what went wrong"))


def scene(lab):
    return SimpleNamespace(
        lab=lab,
        late="",
        left=lambda within: within,
        pause=lambda seconds: pytest.fail("a measurement is not repeated"),
        resolve=lambda value, local=None: value,
        source=lambda text: [End(text, target=text)],
    )


@pytest.fixture
def case(tmp_path):
    (tmp_path / "x.scenario.yaml").write_text(SCENARIO)
    (case,) = load(tmp_path / "x.scenario.yaml")
    return case


def judged(case, lab, **growth):
    expectation = case.variant.steps[0].expectations[0]
    if growth:
        expectation = replace(expectation, args={**expectation.args, "growth": growth})
    return evaluate(scene(lab), expectation)


def test_the_program_runs_at_the_source_and_its_series_are_judged_by_their_growth(case):
    lab = Lab()
    result = judged(case, lab)
    assert lab.asked == ("worker-1", "some.module:main", ["3", "10"])
    assert result.status == "passed"
    (seen,) = result.evidence
    assert seen.seen == "walk: x9, map: x1.12"
    assert seen.detail.splitlines() == [
        "Services       100     1,000   (time, us)",
        "walk            10        90",
        "map              8         9",
    ]


@pytest.mark.parametrize(
    ("growth", "why"),
    [
        ({"walk": {"min": 10}}, "walk grew by a factor of 9, expected at least 10"),
        ({"map": {"max": 1.1}}, "map grew by a factor of 1.12, expected at most 1.1"),
        ({"mpa": {"max": 2}}, "no series 'mpa' was measured; series: walk, map"),
    ],
    ids=["too little", "too much", "not measured"],
)
def test_what_is_not_as_expected_is_said_and_not_measured_again(case, growth, why):
    result = judged(case, Lab(), **growth)
    assert (result.status, result.message, result.evidence[0].tries) == ("failed", why, 1)


def test_a_program_that_fails_says_why(case):
    result = judged(case, Lab("", returncode=1))
    assert result.status == "failed" and "what went wrong" in result.message


def test_a_line_that_is_no_measurement_is_an_error(case):
    result = judged(case, Lab("walk 100 10\n"))
    assert result.status == "error" and "expected NAME, x and y separated by tabs: 'walk 100 10'" in result.message


def test_the_picture_has_a_line_per_series_and_a_dot_per_measurement():
    picture = ElementTree.fromstring(svg(parse(PRINTED, "Services", "time, us")))
    assert len(picture.findall(".//polyline")) == 2
    assert [dot.findtext("title") for dot in picture.iter("circle") if dot.findtext("title")] == [
        "walk, 100: 10",
        "walk, 1,000: 90",
        "map, 100: 8",
        "map, 1,000: 9",
    ]
    heights = [
        float(point.split(",")[1]) for point in existing(picture.findall(".//polyline")[0].get("points")).split()
    ]
    assert heights[0] > heights[1]  # more is further up


def test_names_in_the_picture_are_text():
    assert "&lt;b&gt;" in svg(Chart("x", "y", (Line("<b>", ((1, 1),)),)))


@pytest.mark.parametrize("points", [((0.0, 0.0),), ((5.0, 3.0),), ((0.0, 0.0), (1e6, 1e-3))], ids=str)
def test_any_series_can_be_drawn(points):
    ElementTree.fromstring(svg(Chart("x", "y", (Line("one", points),))))


def test_the_report_and_the_results_have_the_series(case, tmp_path):
    expectations = (judged(case, Lab()),)
    step = StepResult(case.variant.steps[0], "passed", 1.0, expectations=expectations)
    result = CaseResult(case, "passed", 1.0, (step,))
    page = html.render(RunResult((result,), 1.0), tmp_path)
    assert '<svg class="plot"' in page
    HTMLParser().feed(page)
    evidence = case_dict(result)["steps"][0]["expectations"][0]["evidence"][0]
    assert evidence["series"] == {"walk": [[100, 10], [1000, 90]], "map": [[100, 8], [1000, 9]]}
