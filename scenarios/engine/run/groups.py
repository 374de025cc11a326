"""Decides which cases share a lab, and gives each case a unique name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.file.spec import LabSpec


@dataclass(frozen=True)
class Group:
    """Cases that share a lab."""

    name: str
    spec: LabSpec
    cases: tuple[Case, ...]


def group(cases: Sequence[Case]) -> list[Group]:
    """One group per lab, in the order of the cases; an isolated case is a group of its own."""
    shared: dict[LabSpec, list[Case]] = {}
    groups: list[tuple[LabSpec, list[Case]]] = []
    for case in cases:
        if case.scenario.isolated:
            groups.append((case.lab, [case]))
        elif case.lab in shared:
            shared[case.lab].append(case)
        else:
            shared[case.lab] = [case]
            groups.append((case.lab, shared[case.lab]))
    numbered = enumerate(groups, start=1)
    return [Group(str(number), spec, tuple(members)) for number, (spec, members) in numbered]


def slugs(cases: Sequence[Case]) -> dict[str, str]:
    """Case id -> unique name."""
    taken: set[str] = set()
    return {case.id: slug(case, taken) for case in cases}


def slug(case: Case, taken: set[str]) -> str:
    """A name for a case's namespace and files that is not among the taken ones, which it joins. It
    has at most 50 letters, digits and "-", so it is a valid DNS label (RFC 1123)."""
    base = re.sub(r"[^a-z0-9]+", "-", case.id.lower()).strip("-")[:50].strip("-")
    name = base
    number = 2
    while name in taken:
        name = f"{base[:47]}-{number}"
        number += 1
    taken.add(name)
    return name
