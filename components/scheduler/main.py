"""The process: flags, informers and the scheduling loop, health and metrics
(https://kubernetes.io/docs/reference/command-line-tools-reference/kube-scheduler/).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.base import health
from kubewire.components.base.daemon import log_to_stderr, termination
from kubewire.components.base.golang import flag, parse_bool
from kubewire.components.kubeapi.client import Client
from kubewire.components.scheduler.scheduler import DEFAULT_NAME, Scheduler

log = logging.getLogger("kube-scheduler")


@dataclass(frozen=True)
class Options:
    kubeconfig: str
    scheduler_name: str = DEFAULT_NAME
    bind_address: str = "127.0.0.1"
    secure_port: int = 10259
    verbosity: int = 0


def parse(argv: Sequence[str]) -> Options:
    """Parses the flags; prints an error and raises SystemExit(2) when they are wrong."""
    parser = argparse.ArgumentParser(prog="kube-scheduler", allow_abbrev=False)
    add = parser.add_argument
    add("--kubeconfig", required=True, help="file with the API server's address and credentials")
    add(
        "--scheduler-name",
        default=DEFAULT_NAME,
        help="schedule the pods with this spec.schedulerName (not an upstream flag)",
    )
    add("--bind-address", default="127.0.0.1")
    add(
        "--secure-port",
        type=int,
        default=10259,
        help="port of /healthz and /metrics, over plain HTTP; 0 disables them",
    )
    add(
        "--leader-elect",
        nargs="?",
        type=flag(parse_bool),
        const=True,
        default=True,
        help="accepted without effect: a lab runs a single scheduler",
    )
    add("-v", "--v", dest="verbosity", type=int, default=0)
    given = parser.parse_args(list(argv))
    return Options(
        given.kubeconfig,
        given.scheduler_name,
        given.bind_address,
        given.secure_port,
        given.verbosity,
    )


def main(argv: list[str]) -> int:
    """Runs until SIGTERM or SIGINT. Returns 0 then, 1 when the loop failed; wrong flags exit with
    2.
    """
    options = parse(argv)
    log_to_stderr(options.verbosity)
    return asyncio.run(run(options))


async def run(options: Options) -> int:
    stop = termination()
    client = Client.from_kubeconfig(options.kubeconfig, user_agent="kube-scheduler")
    server = None
    if options.secure_port:
        server = await health.serve(options.bind_address, options.secure_port)
    async with client:
        working = asyncio.create_task(Scheduler(client, name=options.scheduler_name).run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        failed = working.done()
        if failed:
            log.error("the scheduling loop failed", exc_info=working.exception())
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        if server is not None:
            server.close()
    return 1 if failed else 0
