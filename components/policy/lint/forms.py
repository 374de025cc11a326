"""Findings as text, JSON, JUnit and SARIF."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from kubewire.components.policy.compiler.kinds import key_of, kind_of
from kubewire.components.policy.files import Found
from kubewire.components.policy.lint.checks import CHECKS, Finding, Severity


def _text(_: Sequence[Found], findings: Sequence[Finding]) -> str:
    lines = []
    for one in findings:
        place = f"{one.policy}{f', {one.where}' if one.where else ''}"
        lines.append(f"{one.place}: {one.check.severity.value} {one.check.code}: {one.check.title}")
        lines += [f"  {one.line:>4} | {one.excerpt}"] if one.line else []
        lines += [f"    {place}", f"    {one.text}", f"    {one.check.link}"]
    number = len(findings)
    return "\n".join([*lines, f"{number} finding{'' if number == 1 else 's'}", ""])


def _json(_: Sequence[Found], findings: Sequence[Finding]) -> str:
    return (
        json.dumps(
            [
                {
                    "code": one.check.code,
                    "severity": one.check.severity.value,
                    "title": one.check.title,
                    "file": one.file,
                    "line": one.line,
                    "policy": str(one.policy),
                    "field": one.where,
                    "text": one.text,
                    "link": one.check.link,
                }
                for one in findings
            ],
            indent=2,
        )
        + "\n"
    )


def _sarif(_: Sequence[Found], findings: Sequence[Finding]) -> str:
    """SARIF 2.1.0 (OASIS), which code hosts show beside the lines of a change."""
    rules = [
        {
            "id": check.code,
            "shortDescription": {"text": check.title},
            "helpUri": check.link,
            "defaultConfiguration": {"level": check.severity.value},
        }
        for check in CHECKS
    ]
    results = [
        {
            "ruleId": one.check.code,
            "level": one.check.severity.value,
            "message": {"text": f"{one.policy}, {one.where or 'the object'}: {one.text}"},
            "locations": [{"physicalLocation": _location(one)}],
        }
        for one in findings
    ]
    driver = {"name": "kubewire policy lint", "rules": rules}
    run = {"tool": {"driver": driver}, "results": results}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _location(finding: Finding) -> dict[str, Any]:
    artifact = {"artifactLocation": {"uri": finding.file}}
    if not finding.line:
        return artifact
    return {**artifact, "region": {"startLine": finding.line}}


def _junit(found: Sequence[Found], findings: Sequence[Finding]) -> str:
    """A test case for each policy; its errors and warnings are failures, its notes are output."""
    suite = ElementTree.Element("testsuite", name="kubewire policy lint")
    failed = 0
    policies = {(one.file, key_of(one.obj)) for one in found if kind_of(one.obj)}
    policies |= {(one.file, one.policy) for one in findings}
    for file, key in sorted(policies, key=str):
        case = ElementTree.SubElement(suite, "testcase", classname=file, name=str(key))
        own = [one for one in findings if (one.file, one.policy) == (file, key)]
        bad = [one for one in own if one.check.severity is not Severity.NOTE]
        notes = [one for one in own if one.check.severity is Severity.NOTE]
        failed += bool(bad)
        if bad:
            message = f"{bad[0].check.code}: {bad[0].check.title}"
            failure = ElementTree.SubElement(case, "failure", message=message)
            failure.text = _text(found, bad)
        if notes:
            ElementTree.SubElement(case, "system-out").text = _text(found, notes)
    suite.set("tests", str(len(policies)))
    suite.set("failures", str(failed))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


#: --output -> what writes it, from the objects that were looked at and the findings.
WRITERS: Mapping[str, Callable[[Sequence[Found], Sequence[Finding]], str]] = {
    "text": _text,
    "json": _json,
    "junit": _junit,
    "sarif": _sarif,
}
