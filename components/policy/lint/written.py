"""Mistakes that only the written NetworkPolicy shows: the compiler's values do not have them any more."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kubewire.components.policy.lint.checks import (
    EXCEPT_OUTSIDE,
    NAME_LABEL,
    NOTHING_ALLOWED,
    OR_FOR_AND,
    TYPE_WITHOUT_EFFECT,
    TYPE_WITHOUT_RULES,
    Check,
)

_NAME_LABEL = "kubernetes.io/metadata.name"

#: A check, the path of the field, and the text.
Mistake = tuple[Check, str, str]


def mistakes(policy: Mapping[str, Any], has_name_label: Callable[[str], bool]) -> Iterator[Mistake]:
    """has_name_label: whether a namespace has the label `name` with a value."""
    spec = policy.get("spec") or {}
    for field, peers_field in (("ingress", "from"), ("egress", "to")):
        yield from _direction(policy, spec, field)
        for number, rule in enumerate(spec.get(field) or ()):
            peers = (rule or {}).get(peers_field) or ()
            yield from _peers(peers, f"spec.{field}[{number}].{peers_field}", has_name_label)


def _direction(policy: Mapping[str, Any], spec: Mapping[str, Any], field: str) -> Iterator[Mistake]:
    types = spec.get("policyTypes") or ()
    word = field.capitalize()
    if spec.get(field) and types and word not in types:
        text = f"the rules have no effect, because policyTypes does not name {word}"
        yield TYPE_WITHOUT_EFFECT, f"spec.{field}", text
    other = "egress" if field == "ingress" else "ingress"
    if {word, other.capitalize()} <= {*types} and field not in spec and spec.get(other):
        text = (
            f"policyTypes names {word} and there is no {field}, so all {field} is denied; "
            f"remove {word}, or write `{field}: []` if that is meant"
        )
        yield TYPE_WITHOUT_RULES, "spec.policyTypes", text
    if spec.get(field) == [] and "allow" in policy["metadata"].get("name", ""):
        text = f"an empty list denies all {field}; `{field}: [{{}}]` allows all"
        yield NOTHING_ALLOWED, f"spec.{field}", text


def _peers(
    peers: Sequence[Mapping[str, Any]], where: str, has_name_label: Callable[[str], bool]
) -> Iterator[Mistake]:
    for number, peer in enumerate(peers):
        labels = (peer.get("namespaceSelector") or {}).get("matchLabels") or {}
        if "name" in labels and not has_name_label(labels["name"]):
            text = f"Kubernetes sets {_NAME_LABEL}: {labels['name']}; `name` must be set by hand"
            yield NAME_LABEL, f"{where}[{number}].namespaceSelector", text
        for inner in _outside(peer.get("ipBlock") or {}):
            text = f"{inner} is not a part of {peer['ipBlock']['cidr']}; the API server refuses it"
            yield EXCEPT_OUTSIDE, f"{where}[{number}].ipBlock.except", text
    for number, (first, second) in enumerate(itertools.pairwise(peers)):
        if {frozenset(first), frozenset(second)} == {
            frozenset({"namespaceSelector"}),
            frozenset({"podSelector"}),
        }:
            text = (
                "either of the two suffices: all pods of the namespaces, or the pods in the "
                "policy's own namespace; for pods in these namespaces write both selectors "
                "under one dash"
            )
            yield OR_FOR_AND, f"{where}[{number}]", text


def _outside(block: Mapping[str, Any]) -> list[str]:
    """The exceptions that are not smaller parts of the block (the validation of NetworkPolicy). What
    is no CIDR is the compiler's to report."""
    found = []
    for inner in block.get("except") or ():
        try:
            whole = ipaddress.ip_network(block["cidr"], strict=False)
            part = ipaddress.ip_network(inner, strict=False)
        except (KeyError, ValueError):
            continue
        inside = part.version == whole.version and part.prefixlen > whole.prefixlen
        if not (inside and part.network_address in whole):
            found.append(str(inner))
    return found
