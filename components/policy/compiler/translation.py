"""What the translation of one object yields, and the pieces that all translations need.

A translation is a pure function of one object: it knows no pods and no other policies. Which
endpoints a definition selects, and so the members of the sets, is found by the Compiler.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.policy.model import (
    AddressSet,
    Definition,
    Endpoint,
    NamedPort,
    Policy,
    PortRange,
    Tier,
)
from kubewire.components.policy.selectors import Selector, from_label_selector

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


class InvalidPolicy(ValueError):
    """An object that cannot be compiled. The text names the field and what is wrong with it."""


@dataclass(frozen=True)
class Translation:
    """What an object contributes. sets: those that its policies' rules name. tiers, endpoints: of
    the kinds that are tiers, or that selectors can select, such as Calico's network sets.
    problem: why a part of the object has no effect, "" if all of it has."""

    policies: tuple[Policy, ...] = ()
    sets: tuple[AddressSet, ...] = ()
    tiers: tuple[Tier, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    problem: str = ""


class Sets:
    """Gathers the sets that the rules of one object need."""

    def __init__(self) -> None:
        self._sets: dict[str, AddressSet] = {}

    def add(self, definition: Definition, named_port: NamedPort | None = None) -> str:
        """The id of the set with these members."""
        made = address_set(definition, named_port)
        self._sets[made.id] = made
        return made.id

    def all(self) -> tuple[AddressSet, ...]:
        return tuple(self._sets.values())


@functools.lru_cache(maxsize=4096)
def address_set(definition: Definition, named_port: NamedPort | None = None) -> AddressSet:
    """The set of a definition. Its id is a hash of the definition, so that rules of different
    objects, and compilers on different nodes, mean the same set by the same id."""
    parts = (
        str(definition.selector),
        definition.namespace,
        "" if definition.namespaces is None else str(definition.namespaces),
        "" if definition.service_accounts is None else str(definition.service_accounts),
        str(definition.only_global),
        " ".join(sorted(kind.value for kind in definition.kinds)),
        "" if named_port is None else f"{named_port.protocol}:{named_port.name}",
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return AddressSet(digest[:20], definition, named_port)


def label_selector(selector: object, where: str) -> Selector:
    """Parses a LabelSelector, and checks what from_label_selector takes for granted. The API
    server has checked it already, but a file that `lint` reads has not passed one."""
    if selector is None:
        selector = {}
    if not isinstance(selector, Mapping):
        raise InvalidPolicy(f"{where}: must be a label selector, not {selector!r}")
    for unknown in sorted(set(selector) - {"matchLabels", "matchExpressions"}):
        raise InvalidPolicy(f"{where}: unknown field {unknown!r} of a label selector")
    labels = selector.get("matchLabels") or {}
    if not isinstance(labels, Mapping):
        raise InvalidPolicy(f"{where}.matchLabels: must be a map of labels, not {labels!r}")
    for key, value in labels.items():
        if not isinstance(value, str):
            raise InvalidPolicy(f"{where}.matchLabels.{key}: must be a string, not {value!r}")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        _check_expression(expression, f"{where}.matchExpressions[{index}]")
    return from_label_selector(selector)


def _check_expression(expression: Any, where: str) -> None:
    key = expression.get("key") if isinstance(expression, Mapping) else None
    if not (key and isinstance(key, str)):
        raise InvalidPolicy(f"{where}.key: required")
    operator, values = expression.get("operator"), expression.get("values")
    if operator not in _OPERATORS:
        raise InvalidPolicy(f"{where}.operator: {operator!r} is none of {', '.join(_OPERATORS)}")
    if operator in {"In", "NotIn"} and not values:
        raise InvalidPolicy(f"{where}.values: required for the operator {operator}")
    if operator in {"Exists", "DoesNotExist"} and values:
        raise InvalidPolicy(f"{where}.values: must be empty for the operator {operator}")


def network(text: object, where: str) -> str:
    """A CIDR in its canonical form: bits behind the prefix are zero."""
    try:
        if not isinstance(text, str) or "/" not in text:
            raise ValueError
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise InvalidPolicy(f"{where}: {text!r} is not a valid CIDR") from None


def port_range(first: object, last: object, where: str) -> PortRange:
    """Ports from first to last; last may be None for one port."""
    last = first if last is None else last
    if not (isinstance(first, int) and isinstance(last, int) and 1 <= first <= last <= 65535):
        text = f"{first}" if first == last else f"{first} to {last}"
        raise InvalidPolicy(f"{where}: {text} must be ports between 1 and 65535 in ascending order")
    return PortRange(first, last)


def merged(ranges: list[PortRange]) -> tuple[PortRange, ...]:
    """The ranges in order, without duplicates."""
    return tuple(sorted(set(ranges)))
