"""Flags, named and defaulted as kube-scheduler's
(https://kubernetes.io/docs/reference/command-line-tools-reference/kube-scheduler/)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.base.golang import flag, parse_bool

DEFAULT_NAME = "default-scheduler"
#: The other flags of 1.36 (cmd/kube-scheduler/app/options and what it includes), which have no
#: effect here, and --leader-elect, which is accepted.
WITHOUT_EFFECT = frozenset(
    """
    allow-metric-labels allow-metric-labels-manifest authentication-kubeconfig authentication-skip-lookup
    authentication-token-webhook-cache-ttl authentication-tolerate-lookup-failure authorization-always-allow-paths
    authorization-kubeconfig authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl
    cert-dir client-ca-file config contention-profiling disable-http2-serving disabled-metrics emulated-version
    feature-gates http2-max-streams-per-connection kube-api-burst kube-api-content-type kube-api-qps leader-elect
    leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name
    leader-elect-resource-namespace leader-elect-retry-period log-flush-frequency log-json-info-buffer-size
    log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format master
    min-compatibility-version permit-address-sharing permit-port-sharing pod-max-in-unschedulable-pods-duration
    profiling requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
    requestheader-group-headers requestheader-uid-headers requestheader-username-headers
    show-hidden-metrics-for-version tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version
    tls-private-key-file tls-sni-cert-key vmodule write-config-to
    """.split()
)


@dataclass(frozen=True)
class Options:
    kubeconfig: str
    scheduler_name: str = DEFAULT_NAME
    bind_address: str = "127.0.0.1"
    secure_port: int = 10259
    verbosity: int = 0


def parser() -> argparse.ArgumentParser:
    """The flags."""
    out = argparse.ArgumentParser(prog="kube-scheduler", allow_abbrev=False)
    add = out.add_argument
    add("--kubeconfig", required=True, help="file with the API server's address and credentials")
    add(
        "--scheduler-name",
        default=DEFAULT_NAME,
        help="schedule the pods with this spec.schedulerName (not an upstream flag)",
    )
    add("--bind-address", default="127.0.0.1")
    add(
        "--secure-port",
        type=int,
        default=10259,
        help="port of /healthz and /metrics, over plain HTTP; 0 disables them",
    )
    add(
        "--leader-elect",
        nargs="?",
        type=flag(parse_bool),
        const=True,
        default=True,
        help="accepted without effect: a lab runs a single scheduler",
    )
    add("-v", "--v", dest="verbosity", type=int, default=0)
    return out


def parse(argv: Sequence[str]) -> Options:
    """Parses the flags; prints an error and raises SystemExit(2) when they are wrong."""
    given = parser().parse_args(list(argv))
    return Options(
        given.kubeconfig,
        given.scheduler_name,
        given.bind_address,
        given.secure_port,
        given.verbosity,
    )
