"""kube-proxy's command line
(https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/)."""

from __future__ import annotations

import argparse
import socket
import sys
from dataclasses import dataclass, replace

from kubewire.components.base import golang
from kubewire.components.kube_proxy.configuration.config import (
    HEALTHZ_PORT,
    METRICS_PORT,
    ConfigError,
    KubeProxyConfiguration,
    append_port,
    load,
)

_boolean = golang.flag(golang.parse_bool)
_duration = golang.flag(golang.parse_duration)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _gates(text: str) -> dict[str, bool]:
    """`A=true,B=false`"""
    pairs = [part.partition("=") for part in _list(text)]
    if any(not equals for _, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"malformed pair, expect string=bool: {text}")
    return {name: _boolean(value) for name, _, value in pairs}


#: flag -> (part of the configuration, field, how it is read)
_SETTINGS = {
    "bind-address": ("", "bind_address", str),
    "bind-address-hard-fail": ("", "bind_address_hard_fail", _boolean),
    "healthz-bind-address": ("", "healthz_bind_address", str),
    "metrics-bind-address": ("", "metrics_bind_address", str),
    "proxy-mode": ("", "mode", str),
    "cluster-cidr": ("", "cluster_cidr", str),
    "detect-local-mode": ("", "detect_local_mode", str),
    "pod-bridge-interface": ("detect_local", "bridge_interface", str),
    "pod-interface-name-prefix": ("detect_local", "interface_name_prefix", str),
    "nodeport-addresses": ("", "node_port_addresses", _list),
    "oom-score-adj": ("", "oom_score_adj", int),
    "masquerade-all": ("iptables", "masquerade_all", _boolean),
    "iptables-masquerade-bit": ("iptables", "masquerade_bit", int),
    "iptables-localhost-nodeports": ("iptables", "localhost_node_ports", _boolean),
    "iptables-min-sync-period": ("iptables", "min_sync_period", _duration),
    "iptables-sync-period": ("iptables", "sync_period", _duration),
    "conntrack-max-per-core": ("conntrack", "max_per_core", int),
    "conntrack-min": ("conntrack", "min", int),
    "conntrack-tcp-be-liberal": ("conntrack", "tcp_be_liberal", _boolean),
    "conntrack-tcp-timeout-close-wait": ("conntrack", "tcp_close_wait_timeout", _duration),
    "conntrack-tcp-timeout-established": ("conntrack", "tcp_established_timeout", _duration),
    "conntrack-udp-timeout": ("conntrack", "udp_timeout", _duration),
    "conntrack-udp-timeout-stream": ("conntrack", "udp_stream_timeout", _duration),
    "kubeconfig": ("client_connection", "kubeconfig", str),
    "kube-api-qps": ("client_connection", "qps", float),
    "kube-api-burst": ("client_connection", "burst", int),
    "kube-api-content-type": ("client_connection", "content_type", str),
    "feature-gates": ("", "feature_gates", _gates),
    "profiling": ("", "enable_profiling", _boolean),
    "show-hidden-metrics-for-version": ("", "show_hidden_metrics_for_version", str),
    "config-sync-period": ("", "config_sync_period", _duration),
    "ipvs-sync-period": ("ipvs", "sync_period", _duration),
    "ipvs-min-sync-period": ("ipvs", "min_sync_period", _duration),
    "ipvs-scheduler": ("ipvs", "scheduler", str),
    "ipvs-exclude-cidrs": ("ipvs", "exclude_cidrs", _list),
    "ipvs-strict-arp": ("ipvs", "strict_arp", _boolean),
    "ipvs-tcp-timeout": ("ipvs", "tcp_timeout", _duration),
    "ipvs-tcpfin-timeout": ("ipvs", "tcp_fin_timeout", _duration),
    "ipvs-udp-timeout": ("ipvs", "udp_timeout", _duration),
    "logging-format": ("logging", "format", str),
    "log-flush-frequency": ("logging", "flush_frequency", _duration),
}
#: Of these a flag counts although there is a file.
_BEFORE_FILE = ("logging-format", "log-flush-frequency")
#: In nftables mode the flags of iptables set its own section, as they share one setting inside
#: upstream.
_SHARED_WITH_NFTABLES = {
    "masquerade-all": "masquerade_all",
    "iptables-sync-period": "sync_period",
    "iptables-min-sync-period": "min_sync_period",
}
_DEPRECATED = {
    "healthz-port": ("healthz_bind_address", HEALTHZ_PORT, "--healthz-bind-address"),
    "metrics-port": ("metrics_bind_address", METRICS_PORT, "--metrics-bind-address"),
}


@dataclass(frozen=True)
class Options:
    """config_file is watched; master overrides the kubeconfig's server."""

    config: KubeProxyConfiguration
    node_name: str
    cleanup: bool
    init_only: bool
    config_file: str
    write_config_to: str
    master: str
    verbosity: int


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="kube-proxy", description="Kubernetes network proxy: Services on this node."
    )
    out.add_argument(
        "--config",
        default="",
        help="KubeProxyConfiguration file; the flags below then do not count",
    )
    out.add_argument(
        "--hostname-override", default="", help="name of our Node object (default: the host name)"
    )
    out.add_argument(
        "--cleanup",
        nargs="?",
        type=_boolean,
        const=True,
        default=False,
        help="remove our rules and exit",
    )
    out.add_argument(
        "--init-only",
        nargs="?",
        type=_boolean,
        const=True,
        default=False,
        help="set the sysctls and exit",
    )
    out.add_argument(
        "--write-config-to", default="", help="write the configuration with all defaults and exit"
    )
    out.add_argument(
        "--master", default="", help="URL of the API server, in place of the kubeconfig's"
    )
    out.add_argument("-v", "--v", dest="verbosity", type=int, help="log verbosity")
    out.add_argument("--version", action="version", version="Kubernetes v1.36.0")
    for flag, (_, port, instead) in _DEPRECATED.items():
        out.add_argument(
            f"--{flag}",
            type=int,
            help=f"deprecated (default {port}), use {instead}; 0 for no server",
        )
    for flag, (_, _, kind) in _SETTINGS.items():
        constant = {"nargs": "?", "const": True} if kind is _boolean else {}
        out.add_argument(f"--{flag}", type=kind, **constant)  # type: ignore[arg-type]
    return out


def parse(argv: list[str]) -> Options:
    """Raises ConfigError; argparse exits with 2 for unknown flags. With a file the flags that have
    a place in it do not count, except those of logging, --hostname-override and (where the file
    names none) --kubeconfig."""
    arguments = vars(parser().parse_args(argv))
    given = {flag: arguments[flag.replace("-", "_")] for flag in _SETTINGS}
    given = {flag: value for flag, value in given.items() if value is not None}
    if arguments["config"]:
        config = load(arguments["config"])
        wins = (*_BEFORE_FILE, *(() if config.client_connection.kubeconfig else ("kubeconfig",)))
        config = _with(config, {flag: value for flag, value in given.items() if flag in wins})
    else:
        config = _with_ports(_with(KubeProxyConfiguration(), given), arguments, given)
    if arguments["verbosity"] is not None:
        config = replace(config, logging=replace(config.logging, verbosity=arguments["verbosity"]))
    config = replace(
        config,
        mode=config.effective_mode,
        detect_local_mode=config.detect_local_mode or "ClusterCIDR",
    )
    return Options(
        config,
        _node_name(arguments["hostname_override"], config),
        arguments["cleanup"],
        arguments["init_only"],
        arguments["config"],
        arguments["write_config_to"],
        arguments["master"],
        config.logging.verbosity,
    )


def _node_name(override: str, config: KubeProxyConfiguration) -> str:
    if override and not override.strip():
        raise ConfigError("empty hostname-override is invalid")
    name = (
        override or config.hostname_override
    ).strip().lower() or socket.gethostname().strip().lower()
    if not name:
        raise ConfigError("empty hostname is invalid")
    return name


def _with_ports(
    config: KubeProxyConfiguration, arguments: dict[str, object], given: dict[str, object]
) -> KubeProxyConfiguration:
    """The deprecated port flags, and addresses without a port. An address given empty stays: no
    server."""
    for flag, (name, default, instead) in _DEPRECATED.items():
        port = arguments[flag.replace("-", "_")]
        if port is not None:
            print(
                f"Flag --{flag} has been deprecated, This flag is deprecated and will be removed in a future release. "
                f"Please use {instead} instead.",
                file=sys.stderr,
            )
        asked = f"{instead.removeprefix('--')}" in given
        address = getattr(config, name)
        number = default if port is None else int(str(port))
        if number == 0:
            address = ""
        elif port is not None and not asked:
            address = append_port(address.rpartition(":")[0].strip("[]"), number)
        config = replace(config, **{name: append_port(address, number)})  # type: ignore[arg-type]
    return config


def _with(config: KubeProxyConfiguration, given: dict[str, object]) -> KubeProxyConfiguration:
    for flag, value in given.items():
        part, name, _ = _SETTINGS[flag]
        if given.get("proxy-mode") == "nftables" and flag in _SHARED_WITH_NFTABLES:
            part, name = "nftables", _SHARED_WITH_NFTABLES[flag]
        if part:
            config = replace(config, **{part: replace(getattr(config, part), **{name: value})})
        else:
            config = replace(config, **{name: value})  # type: ignore[arg-type]
    return config
