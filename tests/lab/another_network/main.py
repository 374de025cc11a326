"""The agent: it sets the routes that its command line names, and waits."""

from __future__ import annotations

import argparse
import signal

from kubewire.components.kernel import command


def main(argv: list[str]) -> int:
    """0 after SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metric", required=True)
    parser.add_argument("--route", action="append", default=[])
    options = parser.parse_args(argv)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for route in options.route:
        subnet, address = route.split(",")
        arguments = ["ip", "route", "replace", subnet, "via", address, "metric", options.metric]
        command.run_blocking(arguments, timeout=10, check=True)
    signal.sigwait({signal.SIGTERM})
    return 0
