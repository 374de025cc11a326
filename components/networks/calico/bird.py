"""The file that BIRD reads, and its control socket: the thin end of confd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubewire.components.kernel.files import replace

_CONFIG = "/etc/calico/confd/config/bird{}.yaml"
_CONTROL = "/var/run/calico/bird{}.ctl"
_SECONDS = 20.0


class NotConfigured(Exception):
    """BIRD does not listen yet."""


class Refused(Exception):
    """BIRD goes on with the configuration that it had."""


async def configure(document: Mapping[str, Any], version: int) -> None:
    """Write the file, and have bird (or bird6 for IPv6) read it. Raises NotConfigured, Refused, OSError."""
    path, control = (text.format("" if version == 4 else "6") for text in (_CONFIG, _CONTROL))
    replace(Path(path), (json.dumps(document, indent=2) + "\n").encode(), 0o600)
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(control)
            try:
                writer.write(b"configure\n")
                answer = (await reader.read()).decode().strip()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise NotConfigured(f"BIRD does not answer at {control}: {error}") from None
    if answer == "Restarting":
        raise NotConfigured(
            "BIRD begins anew",
        )  # and reads the file, but whether this one is not known
    if answer != "Reconfigured":
        raise Refused(f"BIRD refuses {path}: {answer}")
