"""Parses Calico's selector language, in which its policies, sets and endpoints are selected.

    expression := and { "||" and }
    and        := term { "&&" term }
    term       := { "!" } ( "(" expression ")" | "all()" | "global()" | "has(" key ")" | key operator )
    operator   := ("==" | "!=" | "contains" | "starts with" | "ends with") string
                | ("in" | "not in") "{" [ string { "," string } ] "}"

A string stands in single or double quotes and has no escapes. An empty selector matches everything.
Source: the selector section of Calico's reference for NetworkPolicy; errors read as upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kubewire.components.policy.selectors import (
    EVERYTHING,
    All,
    And,
    Equals,
    Has,
    In,
    Labels,
    Not,
    Or,
    Selector,
    Substring,
)


class SelectorError(ValueError):
    """A selector that does not follow the grammar. The text says what was expected."""


@dataclass(frozen=True)
class Global(Selector):
    """`global()`: what has no namespace. It is for namespaceSelector alone, where the caller turns
    it into Definition.only_global; it reads no labels."""

    def matches(self, labels: Labels) -> bool:
        return False

    def keys(self) -> frozenset[str]:
        return frozenset()

    def __str__(self) -> str:
        return "global()"


_KEY = r"[a-zA-Z0-9_./-]{1,512}"
_TOKEN = re.compile(
    rf"""[ \t]*(?:
      (?P<string>"[^"]*"|'[^']*')
    | (?P<has>has\([ \t]*(?P<has_key>{_KEY})[ \t]*\))
    | (?P<all>all\([ \t]*\))
    | (?P<global>global\([ \t]*\))
    | (?P<mark>\(|\)|\{{|\}}|,|==|!=|!|&&|\|\|)
    | (?P<word>{_KEY})
    )""",
    re.X,
)
#: After a key these are operators, although each could be a key as well. A string may follow at
#: once, without a space.
_OPERATOR = re.compile(
    r"[ \t]*(?:(contains)|(starts)[ \t]*with|(ends)[ \t]*with|(not)[ \t]*in|(in))"
)
_FUNCTIONS = frozenset({"has", "all", "global"})
_OPERATORS = ("contains", "starts with", "ends with", "not in", "in")


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str


_END = _Token("end", "")


def parse(text: str) -> Selector:
    """Raises SelectorError."""
    tokens = [*_tokens(text), _END]
    if tokens == [_END]:
        return EVERYTHING
    parser = _Parser(tokens)
    selector = parser.any_of()
    if (rest := parser.next()) is not _END:
        raise SelectorError(f"unexpected content at end of selector: {rest.value}")
    return selector


def _tokens(text: str) -> Iterator[_Token]:
    at, after_key = 0, False
    while text[at:].strip(" \t"):
        if after_key and (found := _OPERATOR.match(text, at)):
            number = next(n for n, group in enumerate(found.groups()) if group)
            yield _Token("mark", _OPERATORS[number])
            at, after_key = found.end(), False
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise SelectorError(_unreadable(text[at:].strip(" \t")))
        kind = "has" if match["has"] else str(match.lastgroup)
        if kind == "word" and (
            match[0].strip(" \t") in _FUNCTIONS and text[match.end() :][:1] == "("
        ):
            raise SelectorError(_incomplete(match[0].strip(" \t"), text[match.end() + 1 :]))
        if after_key and kind == "word":
            raise SelectorError(
                f"unexpected characters after label {_last_key(text[:at])!r}, was expecting an operator"
            )
        value = match["has_key"] if kind == "has" else match[0].strip(" \t")
        yield _Token(kind, value[1:-1] if kind == "string" else value)
        at, after_key = match.end(), kind == "word"


def _last_key(text: str) -> str:
    keys: list[str] = re.findall(_KEY, text)
    return keys[-1]


def _incomplete(function: str, rest: str) -> str:
    if function == "has" and not re.match(rf"[ \t]*{_KEY}", rest):
        return "no label name in has( expression"
    return f"no closing ')' after {function}("


def _unreadable(rest: str) -> str:
    if rest[0] in "\"'":
        return "unterminated string"
    if rest[0] in "=&|":
        return f"expected {rest[0] * 2}"
    return f"unexpected characters: {rest}"


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _takes(self, mark: str) -> bool:
        """Whether the next token is that mark, which is then consumed."""
        if self._tokens[self._at] == _Token("mark", mark):
            self.next()
            return True
        return False

    def any_of(self) -> Selector:
        terms = [self._all_of()]
        while self._takes("||"):
            terms.append(self._all_of())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _all_of(self) -> Selector:
        terms = [self._term()]
        while self._takes("&&"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _term(self) -> Selector:
        negated = False
        while self._takes("!"):
            negated = not negated
        selector = self._positive()
        return Not(selector) if negated else selector

    def _positive(self) -> Selector:
        if self._takes("("):
            selector = self.any_of()
            if not self._takes(")"):
                raise SelectorError("expected )")
            return selector
        token = self.next()
        if token.kind == "has":
            return Has(token.value)
        if token.kind == "all":
            return All()
        if token.kind == "global":
            return Global()
        if token.kind == "word":
            return self._about(token.value)
        if token is _END:
            raise SelectorError("unexpected end of string looking for op")
        raise SelectorError(f"unexpected token: {token.value}")

    def _about(self, key: str) -> Selector:
        operator = self.next()
        if operator.value in {"in", "not in"} and operator.kind == "mark":
            term = In(key, self._set())
            return term if operator.value == "in" else Not(term)
        if operator == _Token("mark", "=="):
            return Equals(key, self._string())
        if operator == _Token("mark", "!="):
            return Not(Equals(key, self._string()))
        if operator.kind == "mark" and operator.value in _OPERATORS:
            return Substring(key, operator.value, self._string())
        if operator is _END:
            raise SelectorError("unexpected end of string looking for op")
        raise SelectorError(f"expected == or != not: {operator.value}")

    def _string(self) -> str:
        token = self.next()
        if token.kind != "string":
            raise SelectorError("expected string")
        return token.value

    def _set(self) -> tuple[str, ...]:
        if not self._takes("{"):
            raise SelectorError("expected set literal")
        values = set()
        while self._tokens[self._at].kind == "string":
            values.add(self.next().value)
            if not self._takes(","):
                break
        if not self._takes("}"):
            raise SelectorError("expected }")
        return tuple(sorted(values))
