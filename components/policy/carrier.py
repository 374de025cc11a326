"""Where in a node's kernel a decision is carried out: what an engine says to `policy explain`.

An engine may have a module explain.py with the function

    carriers(state: State, pod: Endpoint, direction: Direction, decision: Decision)
        -> tuple[Carrier, ...]

which is pure. pod is the one that the decision protects; the commands are run on its node.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kubewire.components.policy.evaluator import Decision
from kubewire.components.policy.model import Direction, Endpoint, State


@dataclass(frozen=True)
class Carrier:
    """A command that prints rules or set elements, and a pattern (re.search) of the lines that carry
    the decision. meaning: what such a line is, such as `rule` or `set element`."""

    command: tuple[str, ...]
    pattern: str
    meaning: str

    def lines(self, output: str) -> list[str]:
        """The lines of the command's output that carry it. None: the kernel lacks what it should
        have."""
        return [line.strip() for line in output.splitlines() if re.search(self.pattern, line)]


Carriers = Callable[[State, Endpoint, Direction, Decision], tuple[Carrier, ...]]
