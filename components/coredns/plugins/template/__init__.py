"""template: makes answers from parts of the query's name (https://coredns.io/plugins/template/)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dnslib import RR

from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import (
    ANY,
    NOERROR,
    NXDOMAIN,
    RCODES,
    Request,
    Response,
    type_number,
)
from kubewire.components.coredns.plugin import (
    Fallthrough,
    Next,
    Setup,
    Zones,
    longest_zone,
    zones_of,
)
from kubewire.components.coredns.plugins import parsing


@dataclass(frozen=True)
class Template:
    """A template directive. records: (section, line of a zone file with `{{ }}` in it)."""

    qtype: int
    zones: Zones
    patterns: tuple[re.Pattern[str], ...]
    records: tuple[tuple[str, str], ...]
    rcode: int
    fallthrough: Fallthrough

    def match(self, request: Request) -> re.Match[str] | None:
        if self.qtype not in (ANY, request.qtype) or not longest_zone(request.name, self.zones):
            return None
        matches = (pattern.search(request.name) for pattern in self.patterns)
        return next((match for match in matches if match), None)

    def response(self, request: Request, match: re.Match[str]) -> Response:
        sections: dict[str, list[RR]] = {"answer": [], "additional": [], "authority": []}
        for section, text in self.records:
            sections[section] += RR.fromZone(_filled(text, request, match))
        return Response(
            self.rcode,
            tuple(sections["answer"]),
            tuple(sections["authority"]),
            tuple(sections["additional"]),
            authoritative=True,
            plugin="template",
        )


def _filled(text: str, request: Request, match: re.Match[str]) -> str:
    """Replaces the expressions in double braces; an unknown expression becomes empty."""
    values = {"Name": request.name, "Type": request.type_name, "Class": request.class_name}

    def value(expression: re.Match[str]) -> str:
        path = expression[1].strip().lstrip(".")
        if path.startswith("Group."):
            return match.groupdict().get(path[6:]) or ""
        if indexed := re.fullmatch(r"index \.Match (\d+)", expression[1].strip()):
            return match[int(indexed[1])] or ""
        return values.get(path, "")

    return re.sub(r"\{\{(.*?)\}\}", value, text)


class Templates:
    name = "template"

    def __init__(self, templates: list[Template]) -> None:
        self._templates = templates

    async def serve(self, request: Request, following: Next) -> Response:
        for template in self._templates:
            match = template.match(request)
            if match is not None:
                return template.response(request, match)
            in_zone = longest_zone(request.name, template.zones)
            if in_zone and template.qtype in (ANY, request.qtype):
                if template.fallthrough.through(request.name):
                    continue
                return Response(NXDOMAIN, authoritative=True, plugin=self.name)
        return await following(request)


def setup(setup: Setup) -> Templates:
    return Templates([_template(line, setup.zones) for line in setup.lines])


def _template(line: Line, zones: Zones) -> Template:
    if len(line.args) < 2:
        line.wrong_arguments()
    try:
        qtype = type_number(line.args[1])
    except KeyError:
        line.fail(f"invalid RR class {line.args[1]}")
    patterns = []
    records = []
    rcode = NOERROR
    fallthrough = Fallthrough()
    for item in line.block:
        match item.name:
            case "match":
                patterns += [_pattern(item, text) for text in parsing.some(item)]
            case "answer" | "additional" | "authority":
                records += [(item.name, text) for text in parsing.some(item)]
            case "rcode":
                rcode = _rcode(item, parsing.one(item))
            case "fallthrough":
                fallthrough = Fallthrough.parse(item)
            case _:
                parsing.unknown(item)
    return Template(
        qtype,
        zones_of(line.args[2:], zones),
        tuple(patterns) or (re.compile(".*"),),
        tuple(records),
        rcode,
        fallthrough,
    )


def _pattern(item: Line, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        item.fail(f"could not parse regex: {text}, {error}")


def _rcode(item: Line, text: str) -> int:
    numbers = {name: number for number, name in RCODES.items()}
    if text.upper() not in numbers:
        item.fail(f"unknown rcode {text}")
    return numbers[text.upper()]
