"""rewrite: changes the name or type of queries, and on request the names in the answers
(https://coredns.io/plugins/rewrite/).

A stub resolver ignores records for a name that it did not ask for. A rule that changes the name
therefore usually has an answer part, which changes the names in the response back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dnslib import RR

from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import (
    CNAME,
    MX,
    NS,
    PTR,
    SRV,
    Request,
    Response,
    renamed,
    type_number,
)
from kubewire.components.coredns.plugin import Next, Setup

_MATCHES = ("exact", "prefix", "suffix", "substring", "regex")


@dataclass(frozen=True)
class Rule:
    """A rewrite directive.

    question: returns the changed request, or None if the rule does not match. answer: returns the
    new name for a name in the response, given the name and the requests before and after the
    change. stop: whether a match ends the processing of rules.
    """

    question: Callable[[Request], Request | None]
    answer: Callable[[str, Request, Request], str] | None
    stop: bool


class Rewrite:
    name = "rewrite"

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules

    async def serve(self, request: Request, following: Next) -> Response:
        current = request
        undo = []
        for rule in self._rules:
            changed = rule.question(current)
            if changed is not None:
                if rule.answer:
                    undo.append((rule.answer, current, changed))
                current = changed
                if rule.stop:
                    break
        response = await following(current)
        for answer, before, after in reversed(undo):
            response = _restored(response, partial(_back, answer, before, after))
        return response


_Answer = Callable[[str, Request, Request], str]


def _back(answer: _Answer, before: Request, after: Request, name: str) -> str:
    return answer(name, before, after)


def _restored(response: Response, name: Callable[[str], str]) -> Response:
    return replace(
        response,
        answer=tuple(_renamed(rr, name) for rr in response.answer),
        additional=tuple(_renamed(rr, name) for rr in response.additional),
    )


def _renamed(rr: RR, name: Callable[[str], str]) -> RR:
    data = rr.rdata
    if rr.rtype in (CNAME, NS, PTR):
        data = type(data)(name(str(data.label)))
    elif rr.rtype == SRV:
        data = type(data)(data.priority, data.weight, data.port, name(str(data.target)))
    elif rr.rtype == MX:
        data = type(data)(name(str(data.label)), data.preference)
    return RR(name(str(rr.rname)), rr.rtype, rr.rclass, rr.ttl, data)


def setup(setup: Setup) -> Rewrite:
    return Rewrite([_rule(line) for line in setup.lines])


def _rule(line: Line) -> Rule:
    args = list(line.args)
    stop = True
    if args and args[0] in ("continue", "stop"):
        stop = args.pop(0) == "stop"
    if len(args) < 3 and not line.block:
        line.wrong_arguments()
    subject = args.pop(0)
    if subject == "type" and len(args) == 2:
        return _type_rule(line, args, stop)
    if subject != "name":
        line.fail(f'invalid rule type "{subject}"')
    kind = args.pop(0) if args[0] in _MATCHES else "exact"
    answer = tuple(args[3:])
    if line.block and line.block[0].name == "answer":
        answer = line.block[0].args
    if len(args) < 2 or (len(args) > 2 and args[2] != "answer"):
        line.wrong_arguments()
    return _name_rule(line, kind, args[0], args[1], answer, stop)


def _type_rule(line: Line, args: list[str], stop: bool) -> Rule:
    try:
        old_type, new_type = map(type_number, args)
    except KeyError as error:
        line.fail(f"invalid type {error.args[0]}")

    def question(request: Request) -> Request | None:
        return renamed(request, request.name, new_type) if request.qtype == old_type else None

    return Rule(question, None, stop)


def _name_rule(
    line: Line,
    kind: str,
    source: str,
    target: str,
    answer: tuple[str, ...],
    stop: bool,
) -> Rule:
    change = _change(line, kind, source, target)

    def question(request: Request) -> Request | None:
        name = change(request.name)
        return None if name is None else renamed(request, name)

    return Rule(question, _answer(line, kind, source, target, answer), stop)


def _change(line: Line, kind: str, source: str, target: str) -> Callable[[str], str | None]:
    """Returns a function from a name to the changed name, or to None if the rule does not match."""
    if kind != "regex":
        source = source.lower()
        target = target.lower()
    old = source.rstrip(".") + "."
    new = target.rstrip(".") + "."
    match kind:
        case "exact":
            return lambda name: new if name == old else None
        case "suffix":
            return lambda name: name[: -len(old)] + new if name.endswith(old) else None
        case "prefix":
            return lambda name: target + name[len(source) :] if name.startswith(source) else None
        case "substring":
            return lambda name: name.replace(source, target) if source in name else None
    try:
        pattern = re.compile(source)
    except re.error as error:
        line.fail(f"invalid regex pattern in a name rule: {source}: {error}")

    def by_regex(name: str) -> str | None:
        match = pattern.search(name)
        return None if match is None else _filled(target, match).rstrip(".") + "."

    return by_regex


def _filled(target: str, match: re.Match[str]) -> str:
    """Replaces `{1}` in target by the first group of the match, and so on."""
    return re.sub(r"\{(\d+)\}", lambda number: match[int(number[1])] or "", target)


def _answer(
    line: Line,
    kind: str,
    source: str,
    target: str,
    answer: tuple[str, ...],
) -> Callable[[str, Request, Request], str] | None:
    """Returns the function for names in the response; None without an answer part."""
    if not answer:
        return None
    if answer == ("auto",):
        if kind == "suffix":
            old = source.lower().rstrip(".") + "."
            new = target.lower().rstrip(".") + "."
            return lambda name, *_: name[: -len(new)] + old if name.lower().endswith(new) else name
        return lambda name, before, after: before.name if name.lower() == after.name else name
    if len(answer) != 3 or answer[0] != "name":
        line.fail(f"invalid response rewrite rule: {' '.join(answer)}")
    try:
        pattern = re.compile(answer[1])
    except re.error as error:
        line.fail(f"invalid regex pattern in a name rule: {answer[1]}: {error}")

    def by_regex(name: str, *_: Request) -> str:
        match = pattern.search(name)
        return name if match is None else _filled(answer[2], match).rstrip(".") + "."

    return by_regex
