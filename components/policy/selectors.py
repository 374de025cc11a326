"""Label selectors as values: one form for those of Kubernetes and of Calico.

A selector is a tree of terms. A LabelSelector of Kubernetes is an And of terms; a selector of
Calico is any expression. `str()` gives Calico's canonical text, which Felix hashes to name its
IP sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Labels = Mapping[str, str]


class Selector:
    """The base of all terms."""

    def matches(self, labels: Labels) -> bool:
        raise NotImplementedError

    def keys(self) -> frozenset[str]:
        """The label keys whose values can change the answer."""
        raise NotImplementedError


@dataclass(frozen=True)
class All(Selector):
    """Matches everything."""

    def matches(self, labels: Labels) -> bool:
        return True

    def keys(self) -> frozenset[str]:
        return frozenset()

    def __str__(self) -> str:
        return "all()"


EVERYTHING = All()


@dataclass(frozen=True)
class Has(Selector):
    """The key exists (Exists)."""

    key: str

    def matches(self, labels: Labels) -> bool:
        return self.key in labels

    def keys(self) -> frozenset[str]:
        return frozenset({self.key})

    def __str__(self) -> str:
        return f"has({self.key})"


@dataclass(frozen=True)
class Equals(Selector):
    """The key exists and has the value."""

    key: str
    value: str

    def matches(self, labels: Labels) -> bool:
        return labels.get(self.key) == self.value

    def keys(self) -> frozenset[str]:
        return frozenset({self.key})

    def __str__(self) -> str:
        return f"{self.key} == {quoted(self.value)}"


@dataclass(frozen=True)
class In(Selector):
    """The key exists and has one of the values, which are sorted."""

    key: str
    values: tuple[str, ...]

    def matches(self, labels: Labels) -> bool:
        return labels.get(self.key) in self.values

    def keys(self) -> frozenset[str]:
        return frozenset({self.key})

    def __str__(self) -> str:
        return f"{self.key} in {{{', '.join(map(quoted, self.values))}}}"


@dataclass(frozen=True)
class Substring(Selector):
    """The key exists, and its value contains, begins with or ends with a text (only Calico).

    how: "contains", "starts with" or "ends with".
    """

    key: str
    how: str
    text: str

    def matches(self, labels: Labels) -> bool:
        value = labels.get(self.key)
        if value is None:
            return False
        if self.how == "contains":
            return self.text in value
        if self.how == "starts with":
            return value.startswith(self.text)
        return value.endswith(self.text)

    def keys(self) -> frozenset[str]:
        return frozenset({self.key})

    def __str__(self) -> str:
        return f"{self.key} {self.how} {quoted(self.text)}"


@dataclass(frozen=True)
class Not(Selector):
    """The term does not match: NotIn and DoesNotExist match objects without the key, too."""

    term: Selector

    def matches(self, labels: Labels) -> bool:
        return not self.term.matches(labels)

    def keys(self) -> frozenset[str]:
        return self.term.keys()

    def __str__(self) -> str:
        if isinstance(self.term, Equals):
            return f"{self.term.key} != {quoted(self.term.value)}"
        if isinstance(self.term, In):
            return str(self.term).replace(" in {", " not in {", 1)
        return f"!{self.term}"


@dataclass(frozen=True)
class And(Selector):
    """All terms match."""

    terms: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        return all(term.matches(labels) for term in self.terms)

    def keys(self) -> frozenset[str]:
        return frozenset[str]().union(*(term.keys() for term in self.terms))

    def __str__(self) -> str:
        return f"({' && '.join(map(str, self.terms))})"


@dataclass(frozen=True)
class Or(Selector):
    """At least one term matches."""

    terms: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        return any(term.matches(labels) for term in self.terms)

    def keys(self) -> frozenset[str]:
        return frozenset[str]().union(*(term.keys() for term in self.terms))

    def __str__(self) -> str:
        return f"({' || '.join(map(str, self.terms))})"


def quoted(value: str) -> str:
    """A value in Calico's text: in double quotes, or in single ones if it has a double one."""
    return f"'{value}'" if '"' in value else f'"{value}"'


def from_label_selector(selector: Mapping[str, object] | None) -> Selector:
    """The terms of a LabelSelector in the order of its keys. None matches everything, as an empty
    selector does; callers that need "nothing" for an absent one decide that themselves."""
    selector = selector or {}
    terms: list[Selector] = []
    labels = selector.get("matchLabels") or {}
    assert isinstance(labels, Mapping)
    terms += (Equals(key, labels[key]) for key in sorted(labels))
    expressions = selector.get("matchExpressions") or ()
    assert isinstance(expressions, list | tuple)
    terms += (_expression(expression) for expression in expressions)
    if not terms:
        return All()
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _expression(expression: Mapping[str, object]) -> Selector:
    key, operator = str(expression["key"]), expression["operator"]
    values = expression.get("values") or ()
    assert isinstance(values, list | tuple)
    if operator in {"In", "NotIn"}:
        term = In(key, tuple(sorted(map(str, values))))
        return term if operator == "In" else Not(term)
    return Has(key) if operator == "Exists" else Not(Has(key))
