"""agnhost: a program with many subcommands for testing networks (upstream: test/images/agnhost)."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import (
    chunks,
    closewait,
    connect,
    grpc_health,
    guestbook,
    incluster,
    mounttest,
    netexec,
    nettest,
    openidmetadata,
    printing,
    resolv,
    resource_consumer,
    serve_hostname,
    servers,
    webhook,
    webserver,
)

#: The upstream release whose behaviour this program has.
VERSION = "2.53"

COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "connect": (connect.main, "Attempts a TCP, UDP or SCTP connection and returns useful errors"),
    "crd-conversion-webhook": (
        webhook.crd_conversion_webhook,
        "Starts an HTTP server, useful for testing CustomResourceConversionWebhook",
    ),
    "dns-server-list": (resolv.dns_server_list, "Prints the host's DNS Server list"),
    "dns-suffix": (resolv.dns_suffix, "Prints the host's DNS suffix list"),
    "entrypoint-tester": (printing.entrypoint_tester, "Prints the args it's passed and exits"),
    "etc-hosts": (resolv.etc_hosts, "Prints the host's /etc/hosts file"),
    "grpc-health-checking": (
        grpc_health.main,
        "Starts a simple grpc health checking endpoint",
    ),
    "guestbook": (
        guestbook.main,
        "Creates a HTTP server with various endpoints representing a guestbook app",
    ),
    "inclusterclient": (
        incluster.main,
        'Periodically poll the Kubernetes "/healthz" endpoint',
    ),
    "liveness": (servers.liveness, "Starts a server that is alive for 10 seconds"),
    "logs-generator": (printing.logs_generator, "Outputs lines of logs to stdout uniformly"),
    "mounttest": (
        mounttest.main,
        "Creates files with given permissions and outputs FS type, owner, mode, contents of files",
    ),
    "net": (
        closewait.main,
        "Creates webserver or runner for various networking tests",
    ),
    "netexec": (
        netexec.main,
        "Creates HTTP(S), UDP, and (optionally) SCTP servers with various endpoints",
    ),
    "nettest": (
        nettest.main,
        "Starts a tiny web server for checking networking connectivity",
    ),
    "nonewprivs": (printing.nonewprivs, "Prints the UID of the running process"),
    "no-snat-test": (servers.no_snat_test, "Creates the /checknosnat and /whoami endpoints"),
    "no-snat-test-proxy": (
        servers.no_snat_test_proxy,
        "Creates a proxy for the /checknosnat endpoint",
    ),
    "pause": (servers.pause, "Pauses the execution"),
    "port-forward-tester": (
        chunks.main,
        "Creates a TCP server that sends chunks of data",
    ),
    "porter": (servers.porter, "Serves requested data on ports specified in ENV variables"),
    "resource-consumer": (resource_consumer.main, "Starts a server that consumes resources"),
    "serve-hostname": (serve_hostname.main, "Serves the hostname"),
    "tcp-reset": (servers.tcp_reset, "Serves on a tcp port and RST connections received"),
    "test-service-account-issuer-discovery": (
        openidmetadata.main,
        "Tests the ServiceAccountIssuerDiscovery feature",
    ),
    "test-webserver": (webserver.test_webserver, "Starts a simple HTTP fileserver"),
    "webhook": (
        webhook.webhook,
        "Starts a HTTP server, useful for testing MutatingAdmissionWebhook and "
        "ValidatingAdmissionWebhook",
    ),
}


def main(argv: list[str], program: str = "/agnhost") -> int:
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
    return entry[0]([program, *argv] if argv[0] == "entrypoint-tester" else argv[1:])


def second(argv: list[str]) -> int:
    """The image's other name of the same program, for tests that override the entrypoint."""
    return main(argv, "/agnhost-2")


def _help(rest: list[str]) -> int:
    if rest and rest[0] in COMMANDS:
        return COMMANDS[rest[0]][0](["--help"])
    print("Usage:\n  app [command]\n\nAvailable Commands:")
    for name, (_, summary) in COMMANDS.items():
        print(f"  {name:20} {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
