"""Label and field selectors
(https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubewire.components.kubeapi import types


class SelectorError(ValueError):
    """The selector cannot be parsed; the text is the API server's."""


@dataclass(frozen=True)
class Requirement:
    """operator is one of In, NotIn, Exists, DoesNotExist, Gt, Lt (metav1.LabelSelectorOperator and
    gt/lt)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return self.key in labels and labels[self.key] in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case "Gt" | "Lt":
                return self._compares(labels.get(self.key, ""))
        raise SelectorError(f"{self.operator!r} is not a valid label selector operator")

    def _compares(self, value: str) -> bool:
        try:
            have = int(value)
            limit = int(self.values[0])
        except ValueError:
            return False
        return have > limit if self.operator == "Gt" else have < limit


_TOKEN = re.compile(r"\s*(!=|==|[=!<>(),]|[^\s=!<>(),]+|$)")
_COMPARISONS = {
    "=": "In",
    "==": "In",
    "!=": "NotIn",
    ">": "Gt",
    "<": "Lt",
    "in": "In",
    "notin": "NotIn",
}
_SYMBOLS = frozenset({"", "!", "=", "==", "!=", "<", ">", "(", ")", ","})


class _Parser:
    """The grammar of apimachinery's labels.Parse, with its error texts. "" is the token at the
    end."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = [*_TOKEN.findall(text), ""]
        self._at = 0

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while (token := self._ahead()) == "!" or token not in _SYMBOLS:
            try:
                found.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from error
            if (token := self._take()) == "":
                return found
            if token != ",":
                raise SelectorError(f"found '{token}', expected: ',' or 'end of string'")
            if (token := self._ahead()) != "!" and token in _SYMBOLS:
                raise SelectorError(f"found '{token}', expected: identifier after ','")
        if token:
            raise SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
        return found

    def _ahead(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        token = self._ahead()
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _identifier(self) -> str:
        if (token := self._take()) in _SYMBOLS:
            raise SelectorError(f"found '{token}', expected: identifier")
        return token

    def _requirement(self) -> Requirement:
        if self._ahead() == "!":
            self._take()
            return Requirement(self._identifier(), "DoesNotExist")
        key = self._identifier()
        if self._ahead() in ("", ","):
            return Requirement(key, "Exists")
        operator = self._take()
        if operator not in _COMPARISONS:
            raise SelectorError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
        if operator in ("in", "notin"):
            return Requirement(key, _COMPARISONS[operator], self._values())
        value = "" if self._ahead() in ("", ",") else self._identifier()
        return Requirement(key, _COMPARISONS[operator], (value,))

    def _values(self) -> tuple[str, ...]:
        if (token := self._take()) != "(":
            raise SelectorError(f"found '{token}' expected: '('")
        if (token := self._ahead()) == ")":
            self._take()
            return ()
        if token != "," and token in _SYMBOLS:
            raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
        values = set()
        while True:
            # An empty place between two commas is the empty value.
            values.add("" if self._ahead() in (",", ")") else self._identifier())
            if (token := self._take()) == ")":
                return tuple(sorted(values))
            if token != ",":
                raise SelectorError(f"found '{token}', expected: ',' or ')'")


@dataclass(frozen=True)
class LabelSelector:
    """All requirements must hold. Without requirements it selects everything."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """The query form: `a=b,c!=d,e in (f,g),h,!i`."""
        return cls(tuple(_Parser(text).requirements()))

    @classmethod
    def from_object(cls, selector: types.LabelSelector | Mapping[str, Any] | None) -> LabelSelector:
        """metav1.LabelSelector: an absent selector selects nothing, an empty one everything."""
        if selector is None:
            return cls(nothing=True)
        equal = [
            Requirement(key, "In", (value,))
            for key, value in sorted((selector.get("matchLabels") or {}).items())
        ]
        expressions = [
            Requirement(
                item.get("key", ""),
                item.get("operator", ""),
                tuple(item.get("values") or ()),
            )
            for item in selector.get("matchExpressions") or ()
        ]
        return cls(tuple(equal + expressions))

    @classmethod
    def from_map(cls, labels: Mapping[str, str] | None) -> LabelSelector:
        """A plain map, such as spec.selector of a Service; an empty map selects nothing."""
        if not labels:
            return cls(nothing=True)
        return cls(tuple(Requirement(key, "In", (value,)) for key, value in sorted(labels.items())))

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        return not self.nothing and all(
            requirement.matches(labels or {}) for requirement in self.requirements
        )

    def __str__(self) -> str:
        return ",".join(_text(requirement) for requirement in self.requirements)


def _text(requirement: Requirement) -> str:
    key = requirement.key
    values = ",".join(requirement.values)
    match requirement.operator:
        case "In":
            return f"{key}={values}" if len(requirement.values) == 1 else f"{key} in ({values})"
        case "NotIn":
            return f"{key}!={values}" if len(requirement.values) == 1 else f"{key} notin ({values})"
        case "Exists":
            return key
        case "DoesNotExist":
            return f"!{key}"
    return f"{key}{'>' if requirement.operator == 'Gt' else '<'}{values}"


@dataclass(frozen=True)
class FieldSelector:
    """`metadata.name=x,status.phase!=Running` as tuples of (field, equal?, value)."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        terms = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            found = re.match(r"^([^!=]+?)\s*(==|!=|=)\s*(.*)$", part)
            if not found:
                raise SelectorError(f"invalid selector: {text!r}; can't understand {part!r}")
            terms.append((found[1], found[2] != "!=", found[3]))
        return cls(tuple(terms))

    def fields(self) -> list[str]:
        return [field for field, _, _ in self.terms]

    def matches(self, values: Mapping[str, str]) -> bool:
        """values: the kind's selectable fields. A field that the kind does not have counts as
        ""."""
        return all(
            (values.get(field, "") == wanted) is equal for field, equal, wanted in self.terms
        )
