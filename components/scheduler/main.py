"""The process: flags, informers and the scheduling loop, health and metrics
(https://kubernetes.io/docs/reference/command-line-tools-reference/kube-scheduler/).
"""

from __future__ import annotations

import asyncio
import logging

from kubewire.components.base import health
from kubewire.components.base.daemon import log_to_stderr, termination
from kubewire.components.kubeapi.client import Client
from kubewire.components.scheduler.flags import Options, parse
from kubewire.components.scheduler.scheduler import Scheduler

log = logging.getLogger("kube-scheduler")


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
