"""Writes junit.xml in the form that Jenkins and GitLab read: one test suite per topic, one test
case per case."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from kubewire.scenarios.engine.events.results import CaseResult, Event, RunFinished, RunResult

JUNIT_FILE = "junit.xml"
#: Characters that XML 1.0 does not allow, such as the escape codes of colours in a command's
#: output.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class JUnitFile:
    def __init__(self, folder: Path) -> None:
        self.path = folder / JUNIT_FILE

    def handle(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(render(event.result))


def render(result: RunResult) -> bytes:
    """The document."""
    root = ElementTree.Element("testsuites", _totals(result.cases, result.seconds))
    ordered = sorted(result.cases, key=lambda case: case.case.scenario.topic)
    for topic, members in groupby(ordered, key=lambda case: case.case.scenario.topic):
        cases = list(members)
        totals = _totals(cases, sum(case.seconds for case in cases))
        suite = ElementTree.SubElement(root, "testsuite", {"name": topic, **totals})
        for case in cases:
            _case(suite, case)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _totals(cases: list[CaseResult] | tuple[CaseResult, ...], seconds: float) -> dict[str, str]:
    statuses = ("failed", "error", "skipped")
    counts = {name: sum(case.status == name for case in cases) for name in statuses}
    return {
        "tests": str(len(cases)),
        "failures": str(counts["failed"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
        "time": f"{seconds:.3f}",
    }


def _case(suite: ElementTree.Element, result: CaseResult) -> None:
    scenario = result.case.scenario
    element = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": f"{scenario.topic}.{scenario.name}",
            "name": result.case.id,
            "file": str(scenario.file),
            "time": f"{result.seconds:.3f}",
        },
    )
    if result.status == "skipped":
        ElementTree.SubElement(element, "skipped", {"message": _clean(result.reason)})
    elif result.status in ("failed", "error"):
        tag = "failure" if result.status == "failed" else "error"
        failure = ElementTree.SubElement(element, tag, {"message": _clean(result.problem)})
        failure.text = _clean("\n".join(evidence_lines(result, failed_only=True)) or result.problem)
    if result.steps:
        out = ElementTree.SubElement(element, "system-out")
        out.text = _clean("\n".join(evidence_lines(result)))


def _clean(text: str) -> str:
    return NOT_XML.sub("?", text)


def evidence_lines(result: CaseResult, *, failed_only: bool = False) -> list[str]:
    """The evidence of a case as plain text."""
    lines: list[str] = []
    for step in result.steps:
        if not failed_only or (step.status != "passed" and not step.expectations):
            title = step.step.name or step.step.action
            lines.append(f"[{step.status}] {title}: {step.message}".rstrip(": "))
        for one in step.expectations:
            for item in one.evidence:
                if failed_only and item.holds:
                    continue
                status = "ok" if item.holds else one.status
                lines.append(f"[{status}] {one.title}: {item.source} {item.seen}")
                if item.why:
                    lines.append(f"    {item.why}")
                if item.command:
                    lines.append(f"    $ {item.command}")
                if not item.holds:
                    lines += [f"    {line}" for line in item.detail.splitlines()]
    return lines
