"""One rule of x-kubernetes-validations: what it needs, and what it says of a value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from kubewire.components.apiserver.cel.engine import (
    CompileError,
    Environment,
    EvaluationError,
    Program,
)

log = logging.getLogger(__name__)

#: Makes an environment in which these variables have the type of the schema.
EnvironmentOf = Callable[[tuple[str, ...]], Environment]
#: The variables that stand for an optional oldSelf, which the engine cannot be given.
_HAS_OLD, _OLD = "hasOldSelf__", "valueOfOldSelf__"
_LONGEST_MESSAGE = 5 * 1024


@dataclass(frozen=True)
class SelfRule:
    """A compiled rule. optional_old says that it is evaluated without an old value, too."""

    rule: Mapping[str, Any]
    program: Program
    message: Program | None
    uses_old: bool
    optional_old: bool

    @property
    def text(self) -> str:
        """How errors name the rule (ruleErrorString)."""
        return str(self.rule.get("message") or self.rule["rule"]).strip()

    def holds(self, value: Any, old: Any) -> bool:
        """Raises EvaluationError."""
        return self.program.evaluate(self._variables(value, old)) is True

    def complaint(self, value: Any, old: Any) -> str:
        """What is said about a value that breaks the rule."""
        if self.message is not None and (text := self._expressed(value, old)):
            return text
        if message := self.rule.get("message"):
            return str(message).strip()
        return f"failed rule: {self.text}"

    def _expressed(self, value: Any, old: Any) -> str:
        assert self.message is not None
        try:
            said = self.message.evaluate(self._variables(value, old))
        except EvaluationError as error:
            log.info("messageExpression failed: %s", error)
            return ""
        text = said.strip() if isinstance(said, str) else ""
        return "" if "\n" in text or len(text.encode()) > _LONGEST_MESSAGE else text

    def _variables(self, value: Any, old: Any) -> dict[str, Any]:
        if self.optional_old:
            return {"self": value, _HAS_OLD: old is not None, _OLD: old}
        return {"self": value, "oldSelf": old} if self.uses_old else {"self": value}


class MessageError(CompileError):
    """The messageExpression is wrong, and not the rule."""


def compile_rule(rule: Mapping[str, Any], environment: EnvironmentOf) -> SelfRule:
    """Compiles a rule with its messageExpression; raises CompileError and MessageError."""
    optional = bool(rule.get("optionalOldSelf"))
    program, uses_old = _compiled(rule["rule"], environment, optional)
    message = None
    if text := rule.get("messageExpression"):
        message = _message(text, environment, optional)
    return SelfRule(rule, program, message, uses_old, optional and uses_old)


def _compiled(text: str, environment: EnvironmentOf, optional: bool) -> tuple[Program, bool]:
    wanted = "cel expression must evaluate to a bool"
    try:
        return environment(("self",)).compile(text, "BOOL", wanted), False
    except CompileError as error:
        if "undeclared reference to 'oldSelf" not in str(error):
            raise _prefixed(error, "compilation failed: ", wanted) from error
    try:
        return _with_old(text, environment, optional, "BOOL", wanted), True
    except CompileError as error:
        raise _prefixed(error, "compilation failed: ", wanted) from error


def _with_old(
    text: str, environment: EnvironmentOf, optional: bool, result: str, wanted: str
) -> Program:
    if not optional:
        return environment(("self", "oldSelf")).compile(text, result, wanted)
    bound = f"cel.bind(oldSelf, {_HAS_OLD} ? optional.of({_OLD}) : optional.none(),\n{text}\n)"
    try:
        return environment(("self", _HAS_OLD, _OLD)).compile(bound, result, wanted)
    except CompileError as error:
        # The rule begins on the second line.
        raise CompileError(str(error).replace("<input>:2:", "<input>:1:")) from error


def _message(text: str, environment: EnvironmentOf, optional: bool) -> Program:
    wanted = "messageExpression must evaluate to a string"
    try:
        return _with_old(text, environment, optional, "STRING", wanted)
    except CompileError as error:
        prefix = "messageExpression compilation failed: "
        raise MessageError(str(_prefixed(error, prefix, wanted))) from error


def _prefixed(error: CompileError, prefix: str, wanted: str) -> CompileError:
    return error if str(error) == wanted else CompileError(prefix + str(error))


@cache
def untyped(names: tuple[str, ...]) -> Environment:
    """The environment for evaluation, in which every value is dynamic."""
    return Environment(dict.fromkeys(names, "dyn") | _flag(names), dynamic_results=True)


def typed(name: str, pool: Any) -> EnvironmentOf:
    """Environments for checking, in which self and oldSelf have a type of the pool."""

    @cache
    def environment(names: tuple[str, ...]) -> Environment:
        return Environment(dict.fromkeys(names, name) | _flag(names), pool)

    return environment


def _flag(names: tuple[str, ...]) -> dict[str, str]:
    return {_HAS_OLD: "bool"} if _HAS_OLD in names else {}
