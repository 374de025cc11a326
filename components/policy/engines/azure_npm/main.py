"""azure-npm's process: its flags, and its agent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from kubewire.components.kubeapi.client import Client
from kubewire.components.policy import process
from kubewire.components.policy.engines.azure_npm.agent import Agent, Metrics, Options


def parse(argv: Sequence[str]) -> Options:
    """--kubeconfig as upstream's `start`; the node's name is HOSTNAME there, and only for its logs."""
    parser = argparse.ArgumentParser(prog="azure-npm", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodename", required=True, help="HOSTNAME")
    parser.add_argument("--metrics-address", default="0.0.0.0:10091")
    given = parser.parse_args(argv)
    return Options(given.kubeconfig, given.metrics_address)


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if azure-npm cannot start."""
    options, metrics = parse(argv), Metrics()
    serving = process.Serving(options.metrics_address, "/node-metrics", metrics.registry)

    async def work(client: Client) -> None:
        await Agent(client, metrics).run()

    return process.main("azure-npm", options.kubeconfig, serving, work)
