"""ipamd's process (upstream: aws-k8s-agent in the DaemonSet aws-node): flags, logging, signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence

from kubewire.components.base import daemon
from kubewire.components.kernel.command import CommandError
from kubewire.components.networks.aws_vpc_cni import environment
from kubewire.components.networks.aws_vpc_cni.ec2 import Ec2
from kubewire.components.networks.aws_vpc_cni.ipamd import Ipamd, Options


def parse(argv: Sequence[str]) -> Options:
    """The variables of upstream's DaemonSet are given as --env NAME=VALUE."""
    parser = argparse.ArgumentParser(prog="aws-k8s-agent", allow_abbrev=False)
    parser.add_argument(
        "--limits",
        required=True,
        help="the instance type's number of interfaces, and of addresses on each: 3,6",
    )
    parser.add_argument("--interface", default="eth0")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(argv)
    interfaces, addresses = (int(part) for part in given.limits.split(","))
    variables = {name: text for name, _, text in (pair.partition("=") for pair in given.env)}
    if wrong := "; ".join(environment.problems(variables)):
        parser.error(wrong)
    return Options((interfaces, addresses), given.interface, variables)


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM, 1 if ipamd cannot start."""
    options = parse(argv)
    daemon.log_to_stderr(0)
    level = options.environment.get("AWS_VPC_K8S_CNI_LOGLEVEL") or "DEBUG"
    logging.getLogger("ipamd").setLevel(level.upper())
    return asyncio.run(
        daemon.until_asked(
            Ipamd(options, Ec2()).run(),
            "aws-k8s-agent",
            (OSError, CommandError, ValueError),
        ),
    )
