"""calico-node's process: flags, logging, signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from components.calico.agent import Agent, Options
from components.machinery import daemon
from components.machinery.client import Client
from components.machinery.command import CommandError
from components.machinery.kubeconfig import KubeconfigError

log = logging.getLogger("calico-node")
_EXPECTED = (KubeconfigError, CommandError, OSError)


def parse(argv: Sequence[str]) -> Options:
    """Flags in place of the environment variables that upstream's DaemonSet sets; help names them."""
    parser = argparse.ArgumentParser(prog="calico-node", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nodename", required=True, help="NODENAME")
    parser.add_argument("--interface", required=True, help="IP_AUTODETECTION_METHOD=interface=")
    parser.add_argument("--ipv4pool-cidr", default="192.168.0.0/16", help="CALICO_IPV4POOL_CIDR")
    parser.add_argument(
        "--ipv4pool-vxlan", default="Never", choices=("Always", "CrossSubnet", "Never"), help="CALICO_IPV4POOL_VXLAN"
    )
    parser.add_argument(
        "--ipv4pool-ipip", default="Never", choices=("Always", "CrossSubnet", "Never"), help="CALICO_IPV4POOL_IPIP"
    )
    parser.add_argument(
        "--networking-backend", default="vxlan", choices=("bird", "vxlan"), help="CALICO_NETWORKING_BACKEND"
    )
    parser.add_argument("--ipv4pool-block-size", type=int, default=26, help="CALICO_IPV4POOL_BLOCK_SIZE")
    given = parser.parse_args(argv)
    return Options(
        kubeconfig=given.kubeconfig,
        nodename=given.nodename,
        interface=given.interface,
        pool_cidr=given.ipv4pool_cidr,
        pool_vxlan=given.ipv4pool_vxlan,
        pool_ipip=given.ipv4pool_ipip,
        with_bird=given.networking_backend == "bird",
        pool_block_size=given.ipv4pool_block_size,
    )


def main(argv: Sequence[str]) -> int:
    """0 after SIGTERM, 1 when it cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(_until_signal(options))


async def _until_signal(options: Options) -> int:
    asked = daemon.termination()
    task = asyncio.ensure_future(_run(options))
    ending = asyncio.ensure_future(asked.wait())
    await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except _EXPECTED as error:
        print(f"calico-node: {error}", file=sys.stderr)
    except BaseExceptionGroup as group:
        expected, rest = group.split(_EXPECTED)
        if rest is not None:
            raise
        for leaf in _leaves(expected):
            print(f"calico-node: {leaf}", file=sys.stderr)
    return 1


def _leaves(error: BaseException | None) -> list[BaseException]:
    """The errors inside of a task group's nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error] if error else []


async def _run(options: Options) -> None:
    async with Client.from_kubeconfig(options.kubeconfig, user_agent="calico-node") as client:
        await Agent(options, client).run()
