"""An immutable mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JsonObject:
    """A mapping from a user's file, kept as JSON text. So it cannot change, and lab files that
    contain it can be compared and hashed."""

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
