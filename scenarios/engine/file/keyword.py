"""The option -k: selects cases by words that are joined with `and`, `or`, `not` and parentheses, as
with pytest.

A word matches if it is part of the case's id, title, topic, tags or file name; the case of letters
does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kubewire.scenarios.engine.file.model import Case

TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")


class KeywordError(ValueError):
    """A -k expression is malformed."""


def matches(expression: str, case: Case) -> bool:
    """Whether an expression selects a case; an empty one selects all. Raises KeywordError."""
    if not expression.strip():
        return True
    scenario = case.scenario
    words = [case.id, scenario.title, scenario.topic, *scenario.tags, scenario.file.name]
    text = " ".join(words).lower()
    return _Reader(expression, lambda word: word.lower() in text).read()


class _Reader:
    def __init__(self, expression: str, fits: Callable[[str], bool]) -> None:
        self.expression = expression
        self.fits = fits
        self.tokens = TOKEN.findall(expression)

    def read(self) -> bool:
        value = self._or()
        if self.tokens:
            raise self._error(f"{self.tokens[0]!r} is unexpected; join words with and, or, not")
        return value

    def _error(self, what: str) -> KeywordError:
        return KeywordError(f"-k {self.expression!r}: {what}")

    def _or(self) -> bool:
        value = self._and()
        while self.tokens[:1] == ["or"]:
            self.tokens.pop(0)
            value = self._and() or value
        return value

    def _and(self) -> bool:
        value = self._not()
        while self.tokens[:1] == ["and"]:
            self.tokens.pop(0)
            value = self._not() and value
        return value

    def _not(self) -> bool:
        if not self.tokens:
            raise self._error("a word is missing at the end")
        token = self.tokens.pop(0)
        if token == "not":
            return not self._not()
        if token == "(":
            value = self._or()
            if self.tokens[:1] != [")"]:
                raise self._error("a parenthesis is not closed")
            self.tokens.pop(0)
            return value
        if token in (")", "and", "or"):
            raise self._error(f"a word is missing before {token!r}")
        return self.fits(token)
