"""A peer's state on disk: one file, replaced as a whole (upstream: a bolt database,
weave-netdata.db)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from kubewire.components.kernel import files

log = logging.getLogger("weave-net")


class Store:
    """prefix: the value of --db-prefix."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(f"{prefix}data.json")

    def load(self) -> dict[str, Any] | None:
        """None if there is no readable file."""
        try:
            data: dict[str, Any] = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("%s: %s", self.path, error)
            return None
        return data if isinstance(data, dict) else None

    def save(self, data: dict[str, Any]) -> None:
        """Raises OSError."""
        files.replace(self.path, json.dumps(data).encode())
