"""weave-net's process: flags, logging, signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence
from ipaddress import IPv4Network

from kubewire.components.base import daemon
from kubewire.components.kernel.command import CommandError
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.networks.weave import dataplane
from kubewire.components.networks.weave.agent import Agent
from kubewire.components.networks.weave.options import Options

log = logging.getLogger("weave-net")
_EXPECTED = (KubeconfigError, CommandError, OSError)
_SMALLEST = 4


def parse(argv: Sequence[str]) -> Options:
    """weaver's flags, and flags for the values that launch.sh takes from the API server or the
    machine."""
    parser = argparse.ArgumentParser(prog="weave-net", allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--nickname", required=True, help="name of this node")
    parser.add_argument("--interface", required=True, help="interface whose address receives VXLAN")
    parser.add_argument(
        "--ipalloc-range",
        type=_network,
        default=IPv4Network("10.32.0.0/12"),
        help="IPALLOC_RANGE",
    )
    parser.add_argument("--ipalloc-default-subnet", type=_network, help="default: the whole range")
    parser.add_argument(
        "--ipalloc-init",
        default="consensus=1",
        help="consensus=N, seed=PEER,PEER or observer",
    )
    parser.add_argument(
        "--name",
        default="",
        help="name of this peer, a MAC address; default: derived from the nickname",
    )
    parser.add_argument("--port", type=int, default=6783)
    parser.add_argument("--http-addr", default="127.0.0.1:6784", help="WEAVE_HTTP_ADDR")
    parser.add_argument("--status-addr", default="0.0.0.0:6782", help="WEAVE_STATUS_ADDR")
    parser.add_argument("--db-prefix", default="/var/lib/weave/weave-net")
    parser.add_argument("--mtu", type=int, default=dataplane.DEFAULT_MTU, help="WEAVE_MTU")
    parser.add_argument(
        "--no-fastdp",
        action="store_true",
        help="WEAVE_NO_FASTDP: use datagrams only, no VXLAN",
    )
    parser.add_argument(
        "--expect-npc",
        action="store_true",
        help="EXPECT_NPC: weave-npc's chains decide what the bridge forwards",
    )
    parser.add_argument("--conn-limit", type=int, default=200, help="CONN_LIMIT")
    parser.add_argument(
        "--password-secret",
        default="",
        help="Secret in kube-system with the password (WEAVE_PASSWORD) under a key of the same name",
    )
    parser.add_argument("--cni-conf-dir", default=Options.cni_conf_dir)
    parser.add_argument("--cni-bin-dir", default=Options.cni_bin_dir)
    given = parser.parse_args(argv)
    kind, _, value = given.ipalloc_init.partition("=")
    if kind not in ("consensus", "seed", "observer") or (
        kind == "consensus" and not value.isdigit()
    ):
        parser.error(f"argument --ipalloc-init: unknown mode {given.ipalloc_init}")
    return Options(
        kubeconfig=given.kubeconfig,
        nodename=given.nickname,
        interface=given.interface,
        range=given.ipalloc_range,
        default_subnet=given.ipalloc_default_subnet or given.ipalloc_range,
        init=given.ipalloc_init,
        name=given.name or dataplane.peer_name(given.nickname),
        port=given.port,
        http_addr=given.http_addr,
        status_addr=given.status_addr,
        db_prefix=given.db_prefix,
        mtu=given.mtu,
        expect_npc=given.expect_npc,
        conn_limit=given.conn_limit,
        fastdp=not given.no_fastdp,
        password_secret=given.password_secret,
        cni_conf_dir=given.cni_conf_dir,
        cni_bin_dir=given.cni_bin_dir,
    )


def _network(text: str) -> IPv4Network:
    """Raises ArgumentTypeError with upstream's text."""
    try:
        network = IPv4Network(text)
    except ValueError as error:
        if "host bits" in str(error):
            error = ValueError(
                f"invalid subnet - bits after network prefix are not all zero: {text}",
            )
        raise argparse.ArgumentTypeError(str(error)) from None
    if network.num_addresses < _SMALLEST:
        raise argparse.ArgumentTypeError(
            f"invalid subnet - smaller than minimum size {_SMALLEST}: {text}",
        )
    return network


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if weave-net cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    return asyncio.run(daemon.until_asked(_run(options), "weave-net", _EXPECTED))


async def _run(options: Options) -> None:
    async with Client.from_kubeconfig(options.kubeconfig, user_agent="weave-net") as client:
        await Agent(options, client).run()
