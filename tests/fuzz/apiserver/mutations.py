"""Mutations of JSON values: what somebody's wrong, careless or hostile client may send instead."""

from __future__ import annotations

import random
from typing import Any

#: What stands in another value's place.
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, -(2**31) - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1, 1.5, 1e300, -0.0,
    "", "0", "x", "-", ".", "/", "a/b", "..", "a b", "A_b", "%", "50%", "-5%", "\x00", "\n", "é", "日本", "a" * 300,
    "1Gi", "1e99999999", "-1", "9" * 400, "0.0.0.0", "::", "10.0.0.0/99", "2026-13-45T99:99:99Z", "AA==", "*", "@hourly",
    "None", "{}", "[]", "null", "true", ".spec.x[", "(", "^(a+)+$", "(?=a)", "kubernetes.io/x", "x" * 254,
    [], [None], [[]], [{}], [""], [0], [1, 1], ["a", "a"], [None, {}], {}, {"": None}, {"a": None}, {"a": {}},
    {"name": None}, {"name": "a"}, {"-": "-"}, {"a": [{"b": [None]}]},
)  # fmt: skip

_KEYS = ("", "name", "metadata", "spec", "status", "x", "$patch", "a.b/c", "-", "kind", "apiVersion", "labels")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def mutated(value: Any, rng: random.Random, most: int = 3) -> Any:
    """A copy with a few changes."""
    result = copied(value)
    for _ in range(rng.randint(1, most)):
        found = places(result)
        if not found:
            return copied(rng.choice(JUNK))
        container, key = rng.choice(found)
        _mutate(container, key, found, rng)
    return result


def _mutate(container: Any, key: Any, found: list[tuple[Any, Any]], rng: random.Random) -> None:
    match rng.randrange(7):
        case 0 | 1 | 2:
            container[key] = copied(rng.choice(JUNK))
        case 3:
            del container[key]
        case 4:
            other, place = rng.choice(found)
            try:
                container[key] = copied(other[place])
            except (KeyError, IndexError):  # an earlier change took it away
                container[key] = None
        case 5 if isinstance(container, list):
            container.insert(rng.randint(0, len(container)), copied(rng.choice([*JUNK, container[key]])))
        case 6 if isinstance(container, dict):
            container[rng.choice(_KEYS)] = copied(rng.choice(JUNK))
        case _:
            container[key] = [copied(container[key])]
