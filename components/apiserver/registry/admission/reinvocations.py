"""What the first run of the admission chain leaves for the second."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


class Reinvocations:
    """Which webhooks or policies are run again (webhookReinvokeContext).

    Only those with the policy IfNeeded are, and only when the object changed after their turn.
    """

    def __init__(self) -> None:
        self.output: Any = None
        #: Those with IfNeeded that were run since the last change.
        self.asked: set[Hashable] = set()
        self.required: set[Hashable] = set()

    def require(self) -> None:
        self.required |= self.asked
        self.asked.clear()
