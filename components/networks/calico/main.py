"""calico-node's process: flags, logging, signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubewire.components.base import daemon, golang
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.networks.calico.agent import Agent, Options, Pool

log = logging.getLogger("calico-node")
_EXPECTED = (KubeconfigError, CommandError, OSError)


def parse(argv: Sequence[str]) -> Options:
    """Flags replace the environment variables of upstream's DaemonSet; the help texts name the
    variables."""
    parser = argparse.ArgumentParser(prog="calico-node", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodename", required=True, help="NODENAME")
    parser.add_argument("--interface", required=True, help="IP_AUTODETECTION_METHOD=interface=")
    modes = ("Always", "CrossSubnet", "Never")
    for version, size in ((4, 26), (6, 122)):
        flag = f"--ipv{version}pool"
        variable = f"CALICO_IPV{version}POOL"
        default = "192.168.0.0/16" if version == 4 else ""
        parser.add_argument(
            f"{flag}-cidr",
            default=default,
            help=f"{variable}_CIDR; empty: no IPv{version}",
        )
        parser.add_argument(
            f"{flag}-vxlan",
            default="Never",
            choices=modes,
            help=f"{variable}_VXLAN",
        )
        parser.add_argument(
            f"{flag}-block-size",
            type=int,
            default=size,
            help=f"{variable}_BLOCK_SIZE",
        )
        parser.add_argument(
            f"{flag}-nat-outgoing",
            default=version == 4,
            type=golang.flag(golang.parse_bool),
            help=f"{variable}_NAT_OUTGOING",
        )
    parser.add_argument(
        "--ipv4pool-ipip",
        default="Never",
        choices=modes,
        help="CALICO_IPV4POOL_IPIP",
    )
    parser.add_argument(
        "--networking-backend",
        default="vxlan",
        choices=("bird", "vxlan"),
        help="CALICO_NETWORKING_BACKEND",
    )
    given = parser.parse_args(argv)
    return Options(
        kubeconfig=given.kubeconfig,
        nodename=given.nodename,
        interface=given.interface,
        pools=tuple(_pools(vars(given))),
        with_bird=given.networking_backend == "bird",
    )


def _pools(given: Mapping[str, Any]) -> Iterator[Pool]:
    for version in (4, 6):
        if cidr := given[f"ipv{version}pool_cidr"]:
            yield Pool(
                cidr,
                given[f"ipv{version}pool_block_size"],
                given[f"ipv{version}pool_vxlan"],
                given["ipv4pool_ipip"] if version == 4 else "Never",
                given[f"ipv{version}pool_nat_outgoing"],
            )


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if calico-node cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(daemon.until_asked(_run(options), "calico-node", _EXPECTED))


async def _run(options: Options) -> None:
    async with Client.from_kubeconfig(options.kubeconfig, user_agent="calico-node") as client:
        await Agent(options, client).run()
