"""kube-network-policies' process: flags, logging, signals, metrics."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
from collections.abc import Sequence

from kubewire.components.base import daemon, health
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.policy.engines.kube_network_policies import render
from kubewire.components.policy.engines.kube_network_policies.agent import Agent, Metrics, Options

log = logging.getLogger("kube-network-policies")
_EXPECTED = (OSError, CommandError, KubeconfigError)


def parse(argv: Sequence[str]) -> Options:
    """Upstream's flags."""
    parser = argparse.ArgumentParser(prog="kube-network-policies", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--hostname-override", default="", help="the node's name")
    parser.add_argument(
        "--fail-open",
        type=_boolean,
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


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if the agent cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(daemon.until_asked(_run(options), "kube-network-policies", _EXPECTED))


async def _run(options: Options) -> None:
    metrics = Metrics()
    host, _, port = options.metrics_address.rpartition(":")
    pages = {"/metrics": lambda: health.Page(metrics.registry.text().encode())}
    agent_name = "kube-network-policies"
    async with Client.from_kubeconfig(options.kubeconfig, user_agent=agent_name) as client:
        server = await health.serve_pages(pages, host or "0.0.0.0", int(port), log)
        async with server:
            await Agent(options.render, client, metrics).run()
