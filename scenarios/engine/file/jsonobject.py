"""A mapping as a value that cannot change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JsonObject:
    """A mapping that a user wrote, as text: so it cannot change, and labs can be compared by it."""

    text: str = "{}"

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> JsonObject:
        return cls(json.dumps(data, sort_keys=True))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found

    def __bool__(self) -> bool:
        return self.text != "{}"


EMPTY = JsonObject()
