"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): what we use of it, strictly decoded.

https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
DEFAULT_MODE = "iptables"
DETECT_LOCAL_MODES = ("BridgeInterface", "ClusterCIDR", "InterfaceNamePrefix", "NodeCIDR")


class ConfigError(ValueError):
    """A configuration that cannot be used; the text names the file or flag and the field."""


@dataclass(frozen=True)
class ClientConnection:
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = "application/vnd.kubernetes.protobuf"
    qps: float = 5.0
    burst: int = 10


@dataclass(frozen=True)
class IptablesSettings:
    """Periods in seconds."""

    masquerade_bit: int = 14
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    sync_period: float = 30.0
    min_sync_period: float = 1.0


@dataclass(frozen=True)
class NftablesSettings:
    """Periods in seconds."""

    masquerade_bit: int = 14
    masquerade_all: bool = False
    sync_period: float = 30.0
    min_sync_period: float = 1.0


@dataclass(frozen=True)
class ConntrackSettings:
    """Timeouts in seconds; 0 leaves the kernel's value."""

    max_per_core: int = 32768
    min: int = 131072
    tcp_established_timeout: float = 86400.0
    tcp_close_wait_timeout: float = 3600.0
    tcp_be_liberal: bool = False
    udp_timeout: float = 0.0
    udp_stream_timeout: float = 0.0


@dataclass(frozen=True)
class DetectLocal:
    bridge_interface: str = ""
    interface_name_prefix: str = ""


@dataclass(frozen=True)
class KubeProxyConfiguration:
    """Defaults are upstream's. mode "" means iptables on Linux."""

    bind_address: str = "0.0.0.0"
    bind_address_hard_fail: bool = False
    healthz_bind_address: str = "0.0.0.0:10256"
    metrics_bind_address: str = "127.0.0.1:10249"
    enable_profiling: bool = False
    hostname_override: str = ""
    client_connection: ClientConnection = ClientConnection()
    config_sync_period: float = 900.0
    mode: str = ""
    cluster_cidr: str = ""
    detect_local_mode: str = "ClusterCIDR"
    detect_local: DetectLocal = DetectLocal()
    node_port_addresses: tuple[str, ...] = ()
    oom_score_adj: int = -999
    port_range: str = ""
    show_hidden_metrics_for_version: str = ""
    iptables: IptablesSettings = IptablesSettings()
    nftables: NftablesSettings = NftablesSettings()
    conntrack: ConntrackSettings = ConntrackSettings()
    #: Accepted as they are: for other modes, or without a meaning here.
    feature_gates: Mapping[str, Any] = field(default_factory=dict)
    ipvs: Mapping[str, Any] = field(default_factory=dict)
    logging: Mapping[str, Any] = field(default_factory=dict)
    winkernel: Mapping[str, Any] = field(default_factory=dict)

    @property
    def effective_mode(self) -> str:
        return self.mode or DEFAULT_MODE

    @property
    def served_node_port_addresses(self) -> tuple[str, ...]:
        """In nftables mode NodePorts are served on the node's own addresses unless others are given (upstream's
        platformApplyDefaults)."""
        default = ("primary",) if self.effective_mode == "nftables" else ()
        return self.node_port_addresses or default

    @property
    def sync_period(self) -> float:
        """The mode's own, in seconds."""
        return self._of_mode.sync_period

    @property
    def min_sync_period(self) -> float:
        return self._of_mode.min_sync_period

    @property
    def _of_mode(self) -> IptablesSettings | NftablesSettings:
        return self.nftables if self.mode == "nftables" else self.iptables


#: Fields whose JSON name is not the camel case of ours.
_JSON_NAMES = {"cluster_cidr": "clusterCIDR", "tcp_be_liberal": "tcpBeLiberal"}


def _json_name(name: str) -> str:
    head, *rest = name.split("_")
    return _JSON_NAMES.get(name, head + "".join(part.capitalize() for part in rest))


def load(path: str) -> KubeProxyConfiguration:
    """A configuration file. Raises ConfigError with upstream's wording for unknown fields."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"failed to load kube-proxy configuration {path}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: not a {KIND}: a mapping is wanted")
    if (raw.get("apiVersion"), raw.get("kind")) != (API_VERSION, KIND):
        raise ConfigError(
            f'{path}: no kind "{raw.get("kind")}" is registered for version "{raw.get("apiVersion")}"; '
            f"wanted apiVersion: {API_VERSION}, kind: {KIND}"
        )
    body = {key: value for key, value in raw.items() if key not in ("apiVersion", "kind")}
    decoded: KubeProxyConfiguration = _decode(KubeProxyConfiguration(), body, "", path)
    return decoded


def _decode(default: Any, body: Any, where: str, path: str) -> Any:
    if not isinstance(body, dict):
        raise ConfigError(f"{path}: {where or KIND}: Invalid value: {body!r}: must be a mapping")
    known = {_json_name(item.name): item.name for item in fields(default)}
    hints = get_type_hints(type(default))
    for key in body:
        if key not in known:
            raise ConfigError(f'{path}: strict decoding error: unknown field "{where}{key}"')
    values = {}
    for key, value in body.items():
        if value is None:
            continue
        name = known[key]
        current = getattr(default, name)
        if is_dataclass(current):
            values[name] = _decode(current, value, f"{where}{key}.", path)
        else:
            values[name] = _scalar(hints[name], value, f"{where}{key}", path)
    return replace(default, **values)


def _scalar(kind: Any, value: Any, where: str, path: str) -> Any:
    converters: dict[Any, Callable[[Any], Any]] = {
        str: lambda v: v if isinstance(v, str) else _refuse(v),
        bool: lambda v: v if isinstance(v, bool) else _refuse(v),
        int: lambda v: v if isinstance(v, int) and not isinstance(v, bool) else _refuse(v),
        float: lambda v: float(v) if isinstance(v, int | float) and not isinstance(v, bool) else seconds(v),
        tuple[str, ...]: lambda v: tuple(v) if isinstance(v, list) else _refuse(v),
    }
    convert = converters.get(kind) or (lambda v: v if isinstance(v, dict) else _refuse(v))
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {where}: Invalid value: {value!r}: {error}") from error


def _refuse(value: Any) -> Any:
    raise ValueError(f"unexpected {type(value).__name__}")


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A Go duration: `1h2m3.5s`, `500ms`, `0`. Raises ValueError."""
    if text in ("0", "+0", "-0"):
        return 0.0
    found = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|h|m|s)", text)
    if not found or "".join(number + unit for number, unit in found) != text.lstrip("+-"):
        raise ValueError(f'time: invalid duration "{text}"')
    return sum(float(number) * _UNITS[unit] for number, unit in found) * (-1 if text.startswith("-") else 1)


def validate(config: KubeProxyConfiguration, modes: tuple[str, ...]) -> None:
    """Raises ConfigError with the first field that upstream's validation refuses."""
    for cidr in filter(None, config.cluster_cidr.split(",")):
        _check_cidr("clusterCIDR", cidr)
    for cidr in config.node_port_addresses:
        if cidr != "primary":
            _check_cidr("nodePortAddresses", cidr)
    if config.mode and config.mode not in modes:
        raise ConfigError(f'mode: Invalid value: "{config.mode}": must be {" or ".join(modes)} or blank')
    if config.detect_local_mode not in DETECT_LOCAL_MODES:
        wanted = ", ".join(f'"{mode}"' for mode in DETECT_LOCAL_MODES)
        raise ConfigError(
            f'detectLocalMode: Unsupported value: "{config.detect_local_mode}": supported values: {wanted}'
        )
    section = config.effective_mode
    settings = config.nftables if section == "nftables" else config.iptables
    if settings.sync_period <= 0:
        raise ConfigError(f"{section}.syncPeriod: Invalid value: must be greater than 0")
    if settings.min_sync_period > settings.sync_period:
        raise ConfigError(f"{section}.syncPeriod: Invalid value: must be greater than or equal to minSyncPeriod")
    if not 0 <= settings.masquerade_bit <= 31:
        raise ConfigError(f"{section}.masqueradeBit: Invalid value: must be within the range [0, 31]")


def _check_cidr(where: str, cidr: str) -> None:
    try:
        if "/" not in cidr:
            raise ValueError
        ipaddress.ip_network(cidr.strip(), strict=False)
    except ValueError as error:
        raise ConfigError(
            f'{where}: Invalid value: "{cidr}": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
        ) from error
