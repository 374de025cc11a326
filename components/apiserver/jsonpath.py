"""The JSONPath of additionalPrinterColumns and selectableFields: .spec.a, ['b.c'], [0], [*], [?(@.type=="Ready")]
(https://kubernetes.io/docs/reference/kubectl/jsonpath/)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>[A-Za-z0-9_$-]+(?:\\.[A-Za-z0-9_$-]+)*|\*)
      | \[\?\(\s*@\.(?P<key>[\w.-]+)\s*(?P<op>==|!=)\s*(?P<quote>["']?)(?P<value>[^"')]*)(?P=quote)\s*\)\]
      | \[(?P<index>-?\d+|\*)\]
      | \[(?P<q>["'])(?P<name>[^"']+)(?P=q)\]""",
    re.VERBOSE,
)
Step = tuple[str, ...]


@lru_cache(maxsize=512)
def parse(path: str) -> tuple[Step, ...]:
    """Raises ValueError for what is not understood."""
    steps: list[Step] = []
    position = 0
    text = path.strip().strip("{}")
    text = text if text.startswith((".", "[")) else "." + text
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            raise ValueError(f"invalid JSON path {path!r} at {text[position:]!r}")
        if found["key"]:
            steps.append(("filter", found["key"], found["op"], found["value"]))
        elif found["index"]:
            steps.append(("index", found["index"]))
        else:
            steps.append(("field", (found["field"] or found["name"]).replace("\\.", ".")))
        position = found.end()
    return tuple(steps)


def find(obj: Any, path: str) -> list[Any]:
    """Every value the path leads to."""
    found = [obj]
    for step in parse(path):
        found = [value for item in found for value in _follow(item, step)]
    return found


def _follow(item: Any, step: Step) -> list[Any]:
    match step:
        case "field", "*":
            return list(item.values()) if isinstance(item, dict) else list(item) if isinstance(item, list) else []
        case "field", name:
            return [item[name]] if isinstance(item, dict) and name in item else []
        case "index", "*":
            return list(item) if isinstance(item, list) else []
        case "index", number:
            return item[int(number) :][:1] if isinstance(item, list) else []
        case "filter", key, operator, value:
            candidates = item if isinstance(item, list) else []
            return [one for one in candidates if (str(_dig(one, key)) == value) == (operator == "==")]
    return []


def _dig(item: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return item
