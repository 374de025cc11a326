"""The JSONPath of additionalPrinterColumns and selectableFields
(https://kubernetes.io/docs/reference/kubectl/jsonpath/).

Supported steps are .spec.a, ['b.c'], [0], [*] and [?(@.type=="Ready")].
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>[A-Za-z0-9_$-]+(?:\\.[A-Za-z0-9_$-]+)*|\*)
      | \[\?\(\s*@\.(?P<key>[\w.-]+)\s*(?P<op>==|!=)
        \s*(?P<quote>["']?)(?P<value>[^"')]*)(?P=quote)\s*\)\]
      | \[(?P<index>-?\d+|\*)\]
      | \[(?P<q>["'])(?P<name>[^"']+)(?P=q)\]""",
    re.VERBOSE,
)
Step = tuple[str, ...]


@lru_cache(maxsize=512)
def parse(path: str) -> tuple[Step, ...]:
    """Parses a path; raises ValueError when it is not supported."""
    steps: list[Step] = []
    position = 0
    text = path.strip().strip("{}")
    text = text if text.startswith((".", "[")) else "." + text
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f"invalid JSON path {path!r} at {text[position:]!r}")
        if match["key"]:
            steps.append(("filter", match["key"], match["op"], match["value"]))
        elif match["index"]:
            steps.append(("index", match["index"]))
        else:
            steps.append(("field", (match["field"] or match["name"]).replace("\\.", ".")))
        position = match.end()
    return tuple(steps)


def find(obj: Any, path: str) -> list[Any]:
    """Returns every value to which the path leads."""
    values = [obj]
    for step in parse(path):
        values = [value for item in values for value in _follow(item, step)]
    return values


def _follow(item: Any, step: Step) -> list[Any]:
    match step:
        case "field", "*":
            if isinstance(item, dict):
                return list(item.values())
            return list(item) if isinstance(item, list) else []
        case "field", name:
            return [item[name]] if isinstance(item, dict) and name in item else []
        case "index", "*":
            return list(item) if isinstance(item, list) else []
        case "index", number:
            return item[int(number) :][:1] if isinstance(item, list) else []
        case "filter", key, operator, value:
            candidates = item if isinstance(item, list) else []
            wants_equal = operator == "=="
            texts = [str(_dig(entry, key)) for entry in candidates]
            pairs = zip(candidates, texts, strict=True)
            return [entry for entry, text in pairs if (text == value) == wants_equal]
    return []


def _dig(item: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return item
