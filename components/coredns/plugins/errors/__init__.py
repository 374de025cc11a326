"""errors: logs each failure of the plugins behind it (https://coredns.io/plugins/errors/)."""

from __future__ import annotations

import logging

from kubewire.components.coredns.message import Request, Response
from kubewire.components.coredns.plugin import Next, Setup
from kubewire.components.coredns.plugins import parsing

log = logging.getLogger("coredns")


class Errors:
    name = "errors"

    async def serve(self, request: Request, following: Next) -> Response:
        try:
            return await following(request)
        except Exception as error:  # the plugin's purpose is to log every failure behind it
            log.error("plugin/errors: 2 %s %s: %s", request.name, request.type_name, error)
            raise


def setup(setup: Setup) -> Errors:
    for line in setup.lines:
        if len(line.args) not in (0, 1) or line.args not in ((), ("stdout",)):
            line.fail(f"invalid log file: {line.args[0]}")
        for item in line.block:
            if item.name not in ("consolidate", "stacktrace"):
                parsing.unknown(item)
    return Errors()
