"""azure-cns's process: flags, logging, signals."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from kubewire.components.base import daemon
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.networks.azure_cni import agent
from kubewire.components.networks.azure_cni.agent import Options


def parse(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="azure-cns", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodename", required=True)
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="pods have addresses of the node's podCIDR",
    )
    parser.add_argument(
        "--non-masquerade-cidr",
        action="append",
        default=[],
        help="ip-masq-agent's nonMasqueradeCIDRs",
    )
    given = parser.parse_args(argv)
    return Options(
        given.kubeconfig,
        given.nodename,
        given.overlay,
        tuple(given.non_masquerade_cidr),
    )


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if azure-cns cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(
        daemon.until_asked(_run(options), "azure-cns", (OSError, CommandError, KubeconfigError)),
    )


async def _run(options: Options) -> None:
    async with Client.from_kubeconfig(options.kubeconfig, user_agent="azure-cns") as client:
        await agent.run(options, client)
