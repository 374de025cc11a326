"""kube-network-policies' process: its flags, and its agent."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence

from kubewire.components.base.golang import flag, parse_bool
from kubewire.components.kubeapi.client import Client
from kubewire.components.policy import process
from kubewire.components.policy.engines.kube_network_policies import render
from kubewire.components.policy.engines.kube_network_policies.agent import Agent, Metrics, Options


def parse(argv: Sequence[str]) -> Options:
    """Upstream's flags."""
    parser = argparse.ArgumentParser(prog="kube-network-policies", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--hostname-override", default="", help="the node's name")
    parser.add_argument(
        "--fail-open",
        type=flag(parse_bool),
        default=True,
        help="do not drop packets while the agent is not running",
    )
    parser.add_argument("--nfqueue-id", type=int, default=100, help="number of the queue")
    parser.add_argument("--metrics-bind-address", default=":9080")
    given = parser.parse_args(argv)
    if not 0 <= given.nfqueue_id <= 65535:
        parser.error(f"argument --nfqueue-id: {given.nfqueue_id} is not between 0 and 65535")
    node = given.hostname_override or socket.gethostname()
    wanted = render.Options(node, given.nfqueue_id, given.fail_open)
    return Options(given.kubeconfig, given.metrics_bind_address, wanted)


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if the agent cannot start."""
    options, metrics = parse(argv), Metrics()
    serving = process.Serving(options.metrics_address, "/metrics", metrics.registry)

    async def work(client: Client) -> None:
        await Agent(options.render, client, metrics).run()

    return process.main("kube-network-policies", options.kubeconfig, serving, work)
