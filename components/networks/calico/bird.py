"""The file that BIRD reads, and BIRD's control socket. confd.py computes the content."""

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
    """BIRD does not listen on its control socket yet."""


class Refused(Exception):
    """BIRD rejects the new configuration and keeps its old one."""


async def configure(document: Mapping[str, Any], version: int) -> None:
    """Writes the file and makes bird (bird6 for IPv6) read it. Raises NotConfigured, Refused,
    OSError."""
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
        # BIRD reads the file when it starts, but it may have read the one before this.
        raise NotConfigured("BIRD is restarting")
    if answer != "Reconfigured":
        raise Refused(f"BIRD refuses {path}: {answer}")
