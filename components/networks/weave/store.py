"""What a peer knows over a restart: one file, written as a whole (upstream: a bolt database, weave-netdata.db)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from kubewire.components.kernel import files

log = logging.getLogger("weave-net")


class Store:
    """prefix: as in --db-prefix."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(f"{prefix}data.json")

    def load(self) -> dict[str, Any] | None:
        """None when there is nothing that can be read."""
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
