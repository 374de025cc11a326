"""What upstream's validation refuses in a KubeProxyConfiguration, with its field paths and texts
(pkg/proxy/apis/config/validation)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Sequence
from typing import Any

from kubewire.components.base.golang import format_duration
from kubewire.components.kube_proxy import modes
from kubewire.components.kube_proxy.configuration.config import ConfigError, KubeProxyConfiguration

#: In the order of upstream's message.
MODES = tuple(sorted(mode.name for mode in modes.MODES))
_DETECT_LOCAL_MODES = ("BridgeInterface", "ClusterCIDR", "InterfaceNamePrefix", "NodeCIDR")
#: The release before v1.36.
_PREVIOUS_MINOR = "1.35"
_ROOT = "KubeProxyConfiguration"


def validate(config: KubeProxyConfiguration) -> None:
    """Raises ConfigError with all that is wrong: one sentence, or several in brackets as Go
    aggregates them."""
    found = list(dict.fromkeys(_errors(config)))
    if found:
        raise ConfigError(found[0] if len(found) == 1 else f"[{', '.join(found)}]")


def _errors(config: KubeProxyConfiguration) -> Iterator[str]:
    yield from _feature_gates(config)
    yield from _bit(config.iptables.masquerade_bit, "KubeProxyIPTablesConfiguration")
    if config.mode == "ipvs":
        yield from _ipvs(config)
    if config.mode == "nftables":
        yield from _bit(config.nftables.masquerade_bit, "KubeProxyNFTablesConfiguration")
    yield from _linux(config)
    if config.mode and config.mode not in MODES:
        why = f"must be {', '.join(MODES)} or blank (blank means the best-available proxy [currently iptables])"
        yield _invalid("Mode.ProxyMode", config.mode, why)
    if config.client_connection.burst < 0:
        yield _invalid(
            "ClientConnection.Burst",
            config.client_connection.burst,
            "must be greater than or equal to 0",
        )
    yield from _periods(config)
    yield from _addresses(config)
    yield from _node_port_addresses(config.node_port_addresses)
    if config.show_hidden_metrics_for_version not in ("", _PREVIOUS_MINOR):
        why = (
            f"--show-hidden-metrics-for-version must be omitted or have the value '{_PREVIOUS_MINOR}'. "
            "Only the previous minor version is allowed"
        )
        yield _invalid("ShowHiddenMetricsForVersion", config.show_hidden_metrics_for_version, why)
    yield from _detect_local(config)
    if config.logging.format not in ("text", "json"):
        yield f'{_ROOT}.logging.format: Invalid value: "{config.logging.format}": Unsupported log format'


def _feature_gates(config: KubeProxyConfiguration) -> Iterator[str]:
    for name, value in config.feature_gates.items():
        if not isinstance(value, bool):
            yield _invalid(
                "featureGates", dict(config.feature_gates), f"invalid value of {name}: {value}"
            )


def _bit(bit: int, where: str) -> Iterator[str]:
    if not 0 <= bit <= 31:
        yield _invalid(f"{where}.MasqueradeBit", bit, "must be within the range [0, 31]")


def _ipvs(config: KubeProxyConfiguration) -> Iterator[str]:
    where, ipvs = "KubeProxyIPVSConfiguration", config.ipvs
    for name, value in (
        ("TCPTimeout", ipvs.tcp_timeout),
        ("TCPFinTimeout", ipvs.tcp_fin_timeout),
        ("UDPTimeout", ipvs.udp_timeout),
    ):
        yield from _not_negative(f"{where}.{name}", value)
    for index, cidr in enumerate(ipvs.exclude_cidrs):
        if not _is_cidr(cidr):
            yield _invalid(f"{where}.ExcludeCidrs[{index}]", cidr, "must be a valid CIDR")


def _linux(config: KubeProxyConfiguration) -> Iterator[str]:
    where, tracking = "KubeProxyLinuxConfiguration", config.conntrack
    inner = f"{where}.KubeProxyConntrackConfiguration"
    for name, number in (("MaxPerCore", tracking.max_per_core), ("Min", tracking.min)):
        if number < 0:
            yield _invalid(f"{inner}.{name}", number, "must be greater than or equal to 0")
    for name, value in (
        ("TCPEstablishedTimeout", tracking.tcp_established_timeout),
        ("TCPCloseWaitTimeout", tracking.tcp_close_wait_timeout),
        ("UDPTimeout", tracking.udp_timeout),
        ("UDPStreamTimeout", tracking.udp_stream_timeout),
    ):
        yield from _not_negative(f"{inner}.{name}", value)
    if not -1000 <= config.oom_score_adj <= 1000:
        yield _invalid(
            f"{where}.OOMScoreAdj", config.oom_score_adj, "must be within the range [-1000, 1000]"
        )


def _periods(config: KubeProxyConfiguration) -> Iterator[str]:
    for name, value in (
        ("ConfigSyncPeriod", config.config_sync_period),
        ("SyncPeriod", config.sync_period),
    ):
        if value <= 0:
            yield _invalid(name, _Duration(value), "must be greater than 0")
    yield from _not_negative("MinSyncPeriod", config.min_sync_period)
    if config.min_sync_period > config.sync_period:
        # Upstream, too, shows the lesser period's value under the greater one's name.
        why = f"must be greater than or equal to {_ROOT}.MinSyncPeriod"
        yield _invalid("SyncPeriod", _Duration(config.min_sync_period), why)


def _addresses(config: KubeProxyConfiguration) -> Iterator[str]:
    if not _is_ip(config.bind_address):
        why = "not a valid textual representation of an IP address"
        yield _invalid("BindAddress", config.bind_address, why)
    for name, value in (
        ("HealthzBindAddress", config.healthz_bind_address),
        ("MetricsBindAddress", config.metrics_bind_address),
    ):
        # Upstream insists on a metrics address here and lets the flag empty it afterwards.
        if value:
            yield from _host_port(name, value)
    if config.port_range and not _is_port_range(config.port_range):
        yield _invalid("PortRange", config.port_range, "must be a valid port range (e.g. 300-2000)")


def _host_port(name: str, value: str) -> Iterator[str]:
    host, colon, port = value.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        yield _invalid(name, value, "must be IP:port")
        return
    host = host.removeprefix("[").removesuffix("]")
    if not _is_ip(host):
        yield _invalid(name, host, "must be a valid IP")
    if not (port.isdecimal() and 1 <= int(port) <= 65535):
        yield _invalid(name, port, "must be a valid port")


def _node_port_addresses(values: Sequence[str]) -> Iterator[str]:
    for index, value in enumerate(values):
        where = f"NodePortAddresses[{index}]"
        if value == "primary":
            if len(values) != 1:
                yield _invalid(where, value, "can't use both 'primary' and CIDRs")
            return
        if not _is_cidr(value):
            yield _invalid(where, value, "must be a valid CIDR")


def _detect_local(config: KubeProxyConfiguration) -> Iterator[str]:
    mode, where = config.detect_local_mode, "DetectLocalConfiguration"
    if mode and mode not in _DETECT_LOCAL_MODES:
        # Go sorts the supported values, and the empty one comes first.
        wanted = ", ".join(f'"{known}"' for known in ("", *_DETECT_LOCAL_MODES))
        yield f'{_ROOT}.DetectLocalMode: Unsupported value: "{mode}": supported values: {wanted}'
    elif mode == "BridgeInterface" and not config.detect_local.bridge_interface:
        yield _invalid(f"{where}.InterfaceName", "", "must not be empty")
    elif mode == "InterfaceNamePrefix" and not config.detect_local.interface_name_prefix:
        yield _invalid(f"{where}.InterfacePrefix", "", "must not be empty")
    elif mode in ("", "ClusterCIDR") and config.cluster_cidr:
        yield from _cluster_cidrs(config.cluster_cidr.split(","), f"{where}.ClusterCIDRs")


def _cluster_cidrs(cidrs: list[str], where: str) -> Iterator[str]:
    pair = "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]"
    if len(cidrs) > 2:
        yield _invalid(where, cidrs, pair)
        return
    for index, cidr in enumerate(cidrs):
        if not _is_cidr(cidr):
            why = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)"
            yield _invalid(f"{where}[{index}]", cidr, why)
    if len(cidrs) == 2 and all(map(_is_cidr, cidrs)) and (":" in cidrs[0]) == (":" in cidrs[1]):
        yield _invalid(where, cidrs, pair)


class _Duration(float):
    """A period in seconds, shown as Go shows it."""


def _not_negative(name: str, seconds: float) -> Iterator[str]:
    if seconds < 0:
        yield _invalid(name, _Duration(seconds), "must be greater than or equal to 0")


def _invalid(name: str, value: Any, why: str) -> str:
    shown = (
        format_duration(value)
        if isinstance(value, _Duration)
        else json.dumps(value, separators=(",", ":"))
    )
    return f"{_ROOT}.{name}: Invalid value: {shown}: {why}"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _is_port_range(text: str) -> bool:
    """`1-65535`, `300+500`, `8080` (utilnet.ParsePortRange)."""
    for sign in "-+":
        low, found, high = text.partition(sign)
        if found:
            return (
                low.isdecimal()
                and high.isdecimal()
                and (sign == "+" or int(low) <= int(high) <= 65535)
            )
    return text.isdecimal() and int(text) <= 65535
