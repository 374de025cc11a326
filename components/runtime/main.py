"""python -m kubewire.components.runtime --socket PATH [--state DIR] [--lower DIR]: start the fork server."""

from __future__ import annotations

import os
import socket
import sys

from . import child, title, zygote  # noqa: F401  (what the forking parents need, loaded before they are forked)
from .preload import COMPONENTS, LIGHT
from .title import ArgvArea


def main(argv: list[str]) -> int:
    """Serve until SIGTERM. Exit codes: 0, 1 (cannot listen, or a forking parent died), 2 (bad flags)."""
    # The forking parents come first: before flags are parsed and the server is imported, so that none of it is in
    # the memory of every pod.
    area = title.argv_area()
    parents = {
        "light": _fork_parent("kubewire-light", LIGHT, area),
        "components": _fork_parent("kubewire-parent", COMPONENTS, area),
    }
    from .serve import serve

    return serve(argv, parents)


def _fork_parent(name: str, modules: tuple[str, ...], area: ArgvArea | None) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        ours.close()
        zygote.run(theirs, name, modules, area)
    theirs.close()
    return ours


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
