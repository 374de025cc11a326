"""weave-npc's process: flags, logging, signals, metrics."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence

from kubewire.components.base import daemon, health
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.policy.engines.weave_npc.agent import Agent, Metrics, Options
from kubewire.components.policy.engines.weave_npc.render import Options as RenderOptions

log = logging.getLogger("weave-npc")
_EXPECTED = (OSError, CommandError, KubeconfigError)


def parse(argv: Sequence[str]) -> Options:
    """weave-npc's flags, and --kubeconfig, which upstream's finds in its pod."""
    parser = argparse.ArgumentParser(prog="weave-npc", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--metrics-addr", default=":6781", help="metrics server bind address")
    parser.add_argument(
        "--allow-mcast",
        type=_boolean,
        nargs="?",
        const=True,
        default=True,
        help="allow all multicast traffic",
    )
    parser.add_argument(
        "--bridge-port-name",
        action="append",
        help="a port of the bridge that leads to other nodes; default: weave-net's",
    )
    given = parser.parse_args(argv)
    ports = tuple(given.bridge_port_name or RenderOptions.bridge_ports)
    return Options(
        kubeconfig=given.kubeconfig,
        node_name=given.node_name,
        metrics_address=given.metrics_addr,
        render=RenderOptions(ports, given.allow_mcast),
    )


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in {"true", "1"}


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if weave-npc cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(daemon.until_asked(_run(options), "weave-npc", _EXPECTED))


async def _run(options: Options) -> None:
    metrics = Metrics()
    host, _, port = options.metrics_address.rpartition(":")
    pages = {"/metrics": lambda: health.Page(metrics.registry.text().encode())}
    log.info("Starting Weaveworks NPC; node name %r", options.node_name)
    async with Client.from_kubeconfig(options.kubeconfig, user_agent="weave-npc") as client:
        server = await health.serve_pages(pages, host or "0.0.0.0", int(port), log)
        async with server:
            await Agent(options, client, metrics).run()
