"""kube-proxy's command line (https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/)."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass, replace

from components.kube_proxy.config import ConfigError, KubeProxyConfiguration, load, seconds


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise argparse.ArgumentTypeError(f'invalid argument "{text}": must be true or false')


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


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
}

#: In nftables mode the flags of iptables set its own section, as they share one setting inside upstream.
_SHARED_WITH_NFTABLES = {
    "masquerade-all": "masquerade_all",
    "iptables-sync-period": "sync_period",
    "iptables-min-sync-period": "min_sync_period",
}


@dataclass(frozen=True)
class Options:
    config: KubeProxyConfiguration
    node_name: str
    cleanup: bool
    verbosity: int


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="kube-proxy", description="Kubernetes network proxy: Services on this node.")
    out.add_argument("--config", default="", help="KubeProxyConfiguration file; the flags below then do not count")
    out.add_argument("--hostname-override", default="", help="name of our Node object (default: the host name)")
    out.add_argument("--cleanup", nargs="?", type=_boolean, const=True, default=False, help="remove our rules and exit")
    out.add_argument("-v", "--v", dest="verbosity", type=int, default=0, help="log verbosity")
    for flag, (_, _, kind) in _SETTINGS.items():
        constant = {"nargs": "?", "const": True} if kind is _boolean else {}
        out.add_argument(f"--{flag}", type=kind, **constant)  # type: ignore[arg-type]
    return out


def parse(argv: list[str]) -> Options:
    """Raises ConfigError; argparse exits with 2 for unknown flags."""
    arguments = vars(parser().parse_args(argv))
    given = {flag: arguments[flag.replace("-", "_")] for flag in _SETTINGS}
    given = {flag: value for flag, value in given.items() if value is not None}
    if arguments["config"]:
        config = load(arguments["config"])
        if not config.client_connection.kubeconfig:
            given = {flag: value for flag, value in given.items() if flag == "kubeconfig"}
            config = _with(config, given)
    else:
        config = _with(KubeProxyConfiguration(), given)
    override = arguments["hostname_override"] or config.hostname_override
    name = override.strip().lower() or socket.gethostname().lower()
    if not name:
        raise ConfigError("empty hostname is invalid")
    return Options(config, name, arguments["cleanup"], arguments["verbosity"])


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
