"""The names of Azure NPM's chains and sets, and how a label selector becomes sets.

Each label of pods is a set of its own (`podlabel-app:db`, `podlabel-app` for the key alone), so is
each namespace (`ns-shop`); a label of namespaces is a list of their sets (`nslabel-team:x`). A rule
matches all sets of a selector, negated ones for NotIn and DoesNotExist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import product

from kubewire.components.policy.model import Definition, ObjectKey
from kubewire.components.policy.selectors import All, And, Equals, Has, In, Not, Selector

MAIN = "AZURE-NPM"
ACCEPT = "AZURE-NPM-ACCEPT"
INGRESS = "AZURE-NPM-INGRESS"
INGRESS_ALLOW = "AZURE-NPM-INGRESS-ALLOW-MARK"
EGRESS = "AZURE-NPM-EGRESS"
INGRESS_ALLOW_MARK = "0x200/0x200"
INGRESS_DROP_MARK = "0x400/0x400"
EGRESS_DROP_MARK = "0x800/0x800"
SET_PREFIX = "azure-npm-"
ALL_NAMESPACES = "nslabel-all-namespaces"

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SET_DIGITS, _CHAIN_DIGITS = 20, 10


def set_name(name: str) -> str:
    """The name of a set in the kernel: the first 20 digits of the SHA-256 sum in base 36."""
    digits = _base36(int.from_bytes(sha256(name.encode()).digest(), "big"))
    return SET_PREFIX + digits.rjust(_SET_DIGITS, "0")[:_SET_DIGITS]


def chain_name(prefix: str, policy: ObjectKey) -> str:
    """The chain of a policy: the last 10 digits of the SHA-256 sum of its key in base 36."""
    number = int.from_bytes(sha256(policy_key(policy).encode()).digest(), "big")
    digits = _base36(number % 36**_CHAIN_DIGITS)
    return f"{prefix}-{digits.rjust(_CHAIN_DIGITS, '0')}"


def policy_key(policy: ObjectKey) -> str:
    return f"{policy.namespace}/{policy.name}"


def _base36(number: int) -> str:
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)) or "0"


@dataclass(frozen=True)
class Match:
    """A match of a set in a rule. name: the set's name before it is hashed. listed: the sets of a
    nested list, which belongs to one policy."""

    name: str
    included: bool = True
    listed: tuple[str, ...] = ()

    def words(self, side: str) -> str:
        negation = "" if self.included else "! "
        return f"-m set {negation}--match-set {set_name(self.name)} {side}"

    def __str__(self) -> str:
        """As in a rule's comment."""
        return self.name if self.included else f"!{self.name}"


def matches_of(definition: Definition, policy: ObjectKey) -> list[tuple[Match, ...]]:
    """The alternatives in which a definition is matched: mostly one, more if a selector of
    namespaces has an In with several values."""
    pods = tuple(_pod_terms(definition.selector, policy))
    if definition.namespace:
        return [(*pods, Match(f"ns-{definition.namespace}"))]
    if definition.namespaces is None:
        return [(*pods, Match(ALL_NAMESPACES))]
    return [(*found, *pods) for found in product(*_namespace_terms(definition.namespaces))]


def _terms(selector: Selector) -> tuple[Selector, ...]:
    return selector.terms if isinstance(selector, And) else (selector,)


def _pod_terms(selector: Selector, policy: ObjectKey) -> Iterator[Match]:
    for term in _terms(selector):
        positive = term.term if isinstance(term, Not) else term
        included = not isinstance(term, Not)
        if isinstance(positive, Equals):
            yield Match(f"podlabel-{positive.key}:{positive.value}", included)
        elif isinstance(positive, Has):
            yield Match(f"podlabel-{positive.key}", included)
        elif isinstance(positive, In):
            listed = tuple(f"podlabel-{positive.key}:{value}" for value in positive.values)
            if len(listed) == 1:
                yield Match(listed[0], included)
            else:
                values = ":".join((policy_key(policy), positive.key, *positive.values))
                yield Match(f"nestedlabel-{values}", included, listed)
        elif not isinstance(positive, All):
            raise ValueError(f"{term} is no term of a label selector")


def _namespace_terms(selector: Selector) -> Iterator[list[Match]]:
    """For each term its alternatives, of which one must match."""
    for term in _terms(selector):
        positive = term.term if isinstance(term, Not) else term
        included = not isinstance(term, Not)
        if isinstance(positive, All):
            yield [Match(ALL_NAMESPACES)]
        elif isinstance(positive, Equals):
            yield [Match(f"nslabel-{positive.key}:{positive.value}", included)]
        elif isinstance(positive, Has):
            yield [Match(f"nslabel-{positive.key}", included)]
        elif isinstance(positive, In):
            values = [
                Match(f"nslabel-{positive.key}:{value}", included) for value in positive.values
            ]
            if included:
                yield values
            else:
                yield from ([value] for value in values)
        else:
            raise ValueError(f"{term} is no term of a label selector")
