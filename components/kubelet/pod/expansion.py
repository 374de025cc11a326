"""Expands $(VAR) in command, args and env values (https://kubernetes.io/docs/tasks/
inject-data-application/define-interdependent-environment-variables/).

A known name is replaced by its value, and an unknown one stays as it is. $$ stands for $, so that
$$(VAR) yields the text $(VAR).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Returns the text with its references replaced."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def expand_all(texts: list[str] | None, variables: Mapping[str, str]) -> list[str]:
    return [expand(text, variables) for text in texts or []]
