"""What people read: terminal, HTML, JUnit and JSON of a run made by hand."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import (
    CaptureResult,
    CaseFinished,
    CaseResult,
    CaseStarted,
    Evidence,
    ExpectationResult,
    LabReady,
    RunFinished,
    RunResult,
    RunStarted,
    StepFinished,
    StepResult,
)
from kubewire.scenarios.engine.loader import load
from kubewire.scenarios.engine.packets.capturing import Sighting
from kubewire.scenarios.engine.packets.decode import decode
from kubewire.scenarios.engine.render import html, junit
from kubewire.scenarios.engine.render.jsonfile import JsonFile, passed_before
from kubewire.scenarios.engine.render.sequence import svg, ways
from kubewire.scenarios.engine.render.terminal import Terminal
from tests.existing import existing

NASTY = '<script>alert("x")</script> \x1b[31mred\x1b[0m'
POINTS = ("pod:a:eth0", "worker-1:eth0", "pod:b:eth0")


def sightings():
    ether, syn = Ether(), IP(src="10.244.1.2", dst="10.96.0.5", id=7) / TCP(sport=1024, dport=80, flags="S", seq=9)
    translated = IP(src="10.244.1.2", dst="10.244.2.3", id=7) / TCP(sport=1024, dport=8080, flags="S", seq=9)
    wrapped = IP(src="172.18.0.3", dst="172.18.0.4") / UDP(sport=50000, dport=8472) / VXLAN(vni=1) / ether / translated
    frames = (ether / syn, ether / wrapped, ether / translated)
    return tuple(
        Sighting(point, 1_000_000 * number, number == 0, decode(bytes(frame)))
        for number, (point, frame) in enumerate(zip(POINTS, frames, strict=True), 1)
    )


@pytest.fixture
def result(tmp_path) -> CaseResult:
    file = tmp_path / "x.scenario.yaml"
    file.write_text(
        "name: x\ntitle: A title\ndescription: What it is about.\nsteps:\n"
        "  - note: Listen well.\n"
        "  - name: The look\n    expect: {name: it answers, from: worker-1, http: 'http://web/'}\n"
    )
    (case,) = load(file)
    note, look = case.variant.steps
    good = Evidence("pod:a", "", True, "curl http://web/", "http://web/ 200", latency=0.003, sightings=sightings())
    bad = Evidence("worker-1", "", False, "curl -m 1 http://web/", NASTY, "refused: no", "all of it", 0.001, 4, 2.0)
    expectation = ExpectationResult(look.expectations[0], "failed", (good, bad), 2.0, "refused: no")
    steps = (
        StepResult(note, "passed", 0.0, "", "Listen well."),
        StepResult(look, "failed", 2.0, "refused: no", "", (expectation,)),
    )
    capture = CaptureResult("wire", "captures/x-wire.pcapng", POINTS, sightings(), 3, 1)
    return CaseResult(case, "failed", 2.5, steps, (capture,), namespace="x")


def told(result: CaseResult, **options) -> str:
    stream = io.StringIO()
    terminal = Terminal(RunOptions(results=Path("results"), **options), stream)
    terminal.handle(RunStarted((result.case,), 1))
    terminal.handle(LabReady("run-1", result.case.lab, 2.5))
    terminal.handle(CaseStarted(result.case, "run-1", 1, 1))
    for number, step in enumerate(result.steps, 1):
        terminal.handle(StepFinished(result.case, step, number))
    terminal.handle(CaseFinished(result))
    terminal.handle(RunFinished(RunResult((result,), 3.0, 1)))
    return stream.getvalue()


def test_the_terminal_tells_a_story_with_evidence(result):
    said = told(result)
    assert "kubewire  1 scenario · 1 case · 1 lab" in said
    assert "● lab run-1  flannel/vxlan · kube-proxy iptables · 3 workers  up in 2.5 s" in said
    assert re.search(r"━━ A title ━+ x\n   What it is about\.", said)
    assert "   ✗ The look  2.0 s\n     ✗ it answers\n" in said
    assert "worker-1  " in said and "1.0 ms, after 4 tries, 2.0 s" in said
    assert "refused: no" in said and "all of it" in said
    assert "try it: curl -m 1 http://web/" in said
    assert said.rstrip().endswith("1 failed in 3.0 s\nreport: results/report.html")


def test_what_holds_is_short_unless_verbose(result):
    held = replace(
        result.steps[1].expectations[0], status="passed", evidence=result.steps[1].expectations[0].evidence[:1]
    )
    passed = replace(result, status="passed", steps=(replace(result.steps[1], status="passed", expectations=(held,)),))
    assert "try it" not in told(passed)
    assert "try it: curl http://web/" in told(passed, verbose=True)
    assert "172.18.0.3:50000 -> 172.18.0.4:8472 VXLAN vni 1 | 10.244.1.2:1024 -> 10.244.2.3:8080 TCP SYN" in told(
        passed
    )


def test_colours_only_when_asked_for_or_on_a_terminal(result):
    assert "\033" not in told(result)  # not even those that a command printed
    assert "\033[32;1m" in told(replace(result, status="passed"), color=True)


def test_quiet_is_a_line_for_each_case(result):
    lines = [line for line in told(result, quiet=True).splitlines() if line]
    assert lines[2].startswith("✗ x failed  1 expectation")
    assert lines[3].strip() == "it answers: refused: no"


def test_with_several_labs_a_story_is_told_at_once(result):
    stream = io.StringIO()
    terminal = Terminal(RunOptions(jobs=2), stream)
    terminal.handle(CaseStarted(result.case, "run-1", 1, 1))
    terminal.handle(StepFinished(result.case, result.steps[1], 1))
    assert stream.getvalue() == ""
    terminal.handle(CaseFinished(result))
    assert "A title" in stream.getvalue() and "The look" in stream.getvalue()


class Page(HTMLParser):
    """Start tags with their attributes; checks that tags are closed in order."""

    VOID = ("meta", "br", "link", "img", "rect", "line", "circle", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_html_report_is_one_file_that_loads_nothing(result, tmp_path):
    page = Page(html.render(RunResult((result,), 3.0, 1), tmp_path))
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe")]
    assert not [values for _, values in page.tags if "src" in values]
    links = [values["href"] for tag, values in page.tags if tag == "a"]
    assert links == ["#x", "captures/x-wire.pcapng"]


def test_texts_of_commands_are_not_html(result, tmp_path):
    text = html.render(RunResult((result,), 3.0, 1), tmp_path)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_a_small_capture_is_inside_the_report_and_a_big_one_is_linked(result, tmp_path):
    (capture,) = result.captures
    file = tmp_path / capture.file
    file.parent.mkdir()
    file.write_bytes(b"abc")
    assert html.capture_link(capture, tmp_path) == "data:application/octet-stream;base64,YWJj"
    file.write_bytes(b"x" * (html.EMBEDDED_CAPTURE + 1))
    assert html.capture_link(capture, tmp_path) == capture.file


def test_the_picture_draws_one_row_for_a_packet_and_marks_vxlan_and_nat():
    assert len(ways(sightings())) == 1
    picture = svg(POINTS, sightings())
    ElementTree.fromstring(picture)
    assert picture.count('class="hop"') == 2
    assert picture.count('class="nat"') == 1
    assert picture.count('class="what"') == 1
    assert "10.244.1.2:1024 → 10.96.0.5:80  TCP SYN" in picture
    assert svg(POINTS, ()) == ""


def test_no_text_of_the_picture_ends_outside_of_it():
    last = POINTS[-1]
    picture = ElementTree.fromstring(svg(POINTS, [one for one in sightings() if one.point == last]))
    (what,) = (text for text in picture.iter("text") if text.get("class") == "what")
    smallest_letter = 6  # of the 11 px in which it is set
    assert int(what.attrib["x"]) + len(existing(what.text)) * smallest_letter <= int(picture.attrib["width"])


def test_many_pairs_become_a_grid(result):
    one = result.steps[1].expectations[0]
    pairs = tuple(Evidence(s, t, True, "", "ok") for s in ("a", "b") for t in ("c", "d"))
    assert html.grid(one) is None
    table = existing(html.grid(replace(one, evidence=pairs)))
    assert (table.sources, table.targets) == (("a", "b"), ("c", "d"))


def test_junit_holds_the_failure_and_no_forbidden_characters(result):
    root = ElementTree.fromstring(junit.render(RunResult((result,), 3.0, 1)))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "1", "0")
    failure = existing(root.find("testsuite/testcase/failure"))
    text = existing(failure.text)
    assert failure.get("message") == "it answers: refused: no"
    assert "curl -m 1 http://web/" in text and "all of it" in text
    assert "?[31mred" in text


def test_json_says_what_passed_and_keeps_what_resume_left_out(result, tmp_path):
    passed = replace(result, status="passed")
    writer = JsonFile(tmp_path)
    writer.handle(CaseFinished(passed))
    assert passed_before(writer.path) == {"x": result.case.fingerprint}
    skipped = CaseResult(result.case, "skipped", 0.0, reason="passed before (--resume)")
    again = JsonFile(tmp_path)
    again.handle(RunStarted((result.case,), 0))
    again.handle(RunFinished(RunResult((skipped,), 0.1)))
    assert passed_before(again.path) == {"x": result.case.fingerprint}
    data = json.loads(again.path.read_text())
    assert data["summary"]["skipped"] == 1
    assert data["cases"][0]["steps"][1]["expectations"][0]["evidence"][0]["packets"][1]["interface"] == "worker-1:eth0"


@pytest.mark.parametrize("text", ["", "{", '{"version": 9, "cases": []}', '{"version": 1}', "[]"])
def test_a_results_file_that_cannot_be_used_means_nothing_has_passed(text, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(text)
    assert passed_before(file) == {}
