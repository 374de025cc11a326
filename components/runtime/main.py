"""Starts the fork server: python -m kubewire.components.runtime --socket PATH [--state DIR] ..."""

from __future__ import annotations

import os
import socket
import sys

from . import child, title, zygote  # noqa: F401  (the forking parents need all of them)
from .preload import LIGHT, components
from .title import ArgvArea


def main(argv: list[str]) -> int:
    """Serves until SIGTERM.

    Returns 0, or 1 if it cannot listen or a forking parent died; ends with 2 for bad flags.
    """
    # The forking parents are forked before flags are parsed and the server is imported, so that the
    # pods' processes have neither in their memory.
    area = title.argv_area()
    parents = {
        "light": _fork_parent("kubewire-light", LIGHT, area),
        "components": _fork_parent("kubewire-parent", components(), area),
    }
    from .serve import serve

    return serve(argv, parents)


def _fork_parent(name: str, modules: tuple[str, ...], area: ArgvArea | None) -> socket.socket:
    server_end, parent_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        server_end.close()
        zygote.run(parent_end, name, modules, area)
    parent_end.close()
    return server_end


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
