"""rewrite: questions (and, where asked, the names in their answers) are changed on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dnslib import RR

from kubewire.components.coredns.corefile import Line
from kubewire.components.coredns.message import CNAME, MX, NS, PTR, SRV, Request, Response, renamed, type_number
from kubewire.components.coredns.plugin import Next, Setup

_MATCHES = ("exact", "prefix", "suffix", "substring", "regex")


@dataclass(frozen=True)
class Rule:
    """question: the request changed, or None when the rule does not match it. answer: the way back for a
    name in the response, given (name, the request before, the request after)."""

    question: Callable[[Request], Request | None]
    answer: Callable[[str, Request, Request], str] | None
    stop: bool


class Rewrite:
    name = "rewrite"

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules

    async def serve(self, request: Request, following: Next) -> Response:
        current, back = request, []
        for rule in self._rules:
            changed = rule.question(current)
            if changed is not None:
                if rule.answer:
                    back.append((rule.answer, current, changed))
                current = changed
                if rule.stop:
                    break
        response = await following(current)
        for answer, before, after in reversed(back):
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
    answer = line.block[0].args if line.block and line.block[0].name == "answer" else tuple(args[3:])
    if len(args) < 2 or (len(args) > 2 and args[2] != "answer"):
        line.wrong_arguments()
    return _name_rule(line, kind, args[0], args[1], answer, stop)


def _type_rule(line: Line, args: list[str], stop: bool) -> Rule:
    try:
        wanted, instead = map(type_number, args)
    except KeyError as error:
        line.fail(f"invalid type {error.args[0]}")
    return Rule(lambda r: renamed(r, r.name, instead) if r.qtype == wanted else None, None, stop)


def _name_rule(line: Line, kind: str, source: str, target: str, answer: tuple[str, ...], stop: bool) -> Rule:
    change = _change(line, kind, source, target)

    def question(request: Request) -> Request | None:
        name = change(request.name)
        return None if name is None else renamed(request, name)

    return Rule(question, _answer(line, kind, source, target, answer), stop)


def _change(line: Line, kind: str, source: str, target: str) -> Callable[[str], str | None]:
    source, target = (source.lower(), target.lower()) if kind != "regex" else (source, target)
    dotted = source.rstrip(".") + ".", target.rstrip(".") + "."
    match kind:
        case "exact":
            return lambda name: dotted[1] if name == dotted[0] else None
        case "suffix":
            return lambda name: name[: -len(dotted[0])] + dotted[1] if name.endswith(dotted[0]) else None
        case "prefix":
            return lambda name: target + name[len(source) :] if name.startswith(source) else None
        case "substring":
            return lambda name: name.replace(source, target) if source in name else None
    try:
        pattern = re.compile(source)
    except re.error as error:
        line.fail(f"invalid regex pattern in a name rule: {source}: {error}")

    def by_regex(name: str) -> str | None:
        found = pattern.search(name)
        return None if found is None else _filled(target, found).rstrip(".") + "."

    return by_regex


def _filled(target: str, found: re.Match[str]) -> str:
    """`{1}` stands for the first group."""
    return re.sub(r"\{(\d+)\}", lambda number: found[int(number[1])] or "", target)


def _answer(
    line: Line, kind: str, source: str, target: str, answer: tuple[str, ...]
) -> Callable[[str, Request, Request], str] | None:
    if not answer:
        return None
    if answer == ("auto",):
        if kind == "suffix":
            ends = source.lower().rstrip(".") + ".", target.lower().rstrip(".") + "."
            return lambda name, *_: name[: -len(ends[1])] + ends[0] if name.lower().endswith(ends[1]) else name
        return lambda name, before, after: before.name if name.lower() == after.name else name
    if len(answer) != 3 or answer[0] != "name":
        line.fail(f"invalid response rewrite rule: {' '.join(answer)}")
    try:
        pattern = re.compile(answer[1])
    except re.error as error:
        line.fail(f"invalid regex pattern in a name rule: {answer[1]}: {error}")

    def by_regex(name: str, *_: Request) -> str:
        found = pattern.search(name)
        return name if found is None else _filled(answer[2], found).rstrip(".") + "."

    return by_regex
