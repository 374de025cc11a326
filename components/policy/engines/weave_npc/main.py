"""weave-npc's process: its flags, and its agent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from kubewire.components.base.golang import flag, parse_bool
from kubewire.components.kubeapi.client import Client
from kubewire.components.policy import process
from kubewire.components.policy.engines.weave_npc.agent import Agent, Metrics, Options
from kubewire.components.policy.engines.weave_npc.render import Options as RenderOptions


def parse(argv: Sequence[str]) -> Options:
    """weave-npc's flags, and --kubeconfig, which upstream's finds in its pod."""
    parser = argparse.ArgumentParser(prog="weave-npc", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--metrics-addr", default=":6781", help="metrics server bind address")
    parser.add_argument(
        "--allow-mcast",
        type=flag(parse_bool),
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
        metrics_address=given.metrics_addr,
        render=RenderOptions(ports, given.allow_mcast),
    )


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if weave-npc cannot start."""
    options, metrics = parse(argv), Metrics()
    serving = process.Serving(options.metrics_address, "/metrics", metrics.registry)

    async def work(client: Client) -> None:
        await Agent(options, client, metrics).run()

    return process.main("weave-npc", options.kubeconfig, serving, work)
