"""agnhost: a program with many subcommands for testing networks (upstream: test/images/agnhost)."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import connect, netexec, printing, resolv, serve_hostname, servers, webserver

#: The upstream release whose behaviour this program has.
VERSION = "2.53"

COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "connect": (connect.main, "Attempts a TCP, UDP or SCTP connection and returns useful errors"),
    "dns-server-list": (resolv.dns_server_list, "Prints the host's DNS Server list"),
    "dns-suffix": (resolv.dns_suffix, "Prints the host's DNS suffix list"),
    "entrypoint-tester": (printing.entrypoint_tester, "Prints the args it's passed and exits"),
    "etc-hosts": (resolv.etc_hosts, "Prints the host's /etc/hosts file"),
    "liveness": (servers.liveness, "Starts a server that is alive for 10 seconds"),
    "logs-generator": (printing.logs_generator, "Outputs lines of logs to stdout uniformly"),
    "netexec": (
        netexec.main,
        "Creates HTTP(S), UDP, and (optionally) SCTP servers with various endpoints",
    ),
    "no-snat-test": (servers.no_snat_test, "Creates the /checknosnat and /whoami endpoints"),
    "pause": (servers.pause, "Pauses the execution"),
    "porter": (servers.porter, "Serves requested data on ports specified in ENV variables"),
    "serve-hostname": (serve_hostname.main, "Serves the hostname"),
    "tcp-reset": (servers.tcp_reset, "Serves on a tcp port and RST connections received"),
    "test-webserver": (webserver.test_webserver, "Starts a simple HTTP fileserver"),
}


def main(argv: list[str]) -> int:
    """Runs a subcommand and returns its exit code; returns 1 for an unknown subcommand."""
    if not argv or argv[0] in ("help", "--help", "-h"):
        return _help(argv[1:])
    if argv[0] in ("--version", "version"):
        print(f"app version {VERSION}")
        return 0
    entry = COMMANDS.get(argv[0])
    if entry is None:
        message = f'Error: unknown command "{argv[0]}" for "app"'
        print(f"{message}\nRun 'app --help' for usage.", file=sys.stderr)
        return 1
    return entry[0](argv[1:])


def _help(rest: list[str]) -> int:
    if rest and rest[0] in COMMANDS:
        return COMMANDS[rest[0]][0](["--help"])
    print("Usage:\n  app [command]\n\nAvailable Commands:")
    for name, (_, summary) in COMMANDS.items():
        print(f"  {name:20} {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
