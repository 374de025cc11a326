"""azure-npm's process: flags, logging, signals, metrics."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence

from kubewire.components.base import daemon, health
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.policy.engines.azure_npm.agent import Agent, Metrics, Options

log = logging.getLogger("azure-npm")
_EXPECTED = (OSError, CommandError, KubeconfigError)


def parse(argv: Sequence[str]) -> Options:
    """--kubeconfig as upstream's `start`; the node's name is HOSTNAME there."""
    parser = argparse.ArgumentParser(prog="azure-npm", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodename", required=True, help="HOSTNAME")
    parser.add_argument("--metrics-address", default="0.0.0.0:10091")
    given = parser.parse_args(argv)
    return Options(given.kubeconfig, given.nodename, given.metrics_address)


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if azure-npm cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(daemon.until_asked(_run(options), "azure-npm", _EXPECTED))


async def _run(options: Options) -> None:
    metrics = Metrics()
    host, _, port = options.metrics_address.rpartition(":")
    pages = {"/node-metrics": lambda: health.Page(metrics.registry.text().encode())}
    log.info("Starting Azure NPM on node %s", options.node_name)
    async with Client.from_kubeconfig(options.kubeconfig, user_agent="azure-npm") as client:
        server = await health.serve_pages(pages, host or "0.0.0.0", int(port), log)
        async with server:
            await Agent(client, metrics).run()
