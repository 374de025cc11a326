"""KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): every field, strictly decoded, and
written out again.

https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from kubewire.components.base import yamlfile
from kubewire.components.base.golang import format_duration, parse_duration
from kubewire.components.kube_proxy import modes

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
HEALTHZ_PORT, METRICS_PORT = 10256, 10249


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
class IpvsSettings:
    """Periods and timeouts in seconds; a timeout of 0 leaves the kernel's."""

    sync_period: float = 30.0
    min_sync_period: float = 0.0
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] = ()
    strict_arp: bool = False
    tcp_timeout: float = 0.0
    tcp_fin_timeout: float = 0.0
    udp_timeout: float = 0.0


@dataclass(frozen=True)
class WinkernelSettings:
    """Read and kept: there is no Windows here."""

    network_name: str = ""
    source_vip: str = ""
    enable_dsr: bool = False
    root_hns_endpoint_name: str = ""
    forward_health_check_vip: bool = False


@dataclass(frozen=True)
class TextLogOptions:
    split_stream: bool = False
    info_buffer_size: str = "0"


@dataclass(frozen=True)
class LogOptions:
    text: TextLogOptions = TextLogOptions()
    json: TextLogOptions = TextLogOptions()


@dataclass(frozen=True)
class LoggingSettings:
    """verbosity counts; the rest is read and kept."""

    format: str = "text"
    flush_frequency: float = 5.0
    verbosity: int = 0
    vmodule: tuple[Any, ...] = ()
    options: LogOptions = LogOptions()


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
    windows_run_as_service: bool = False
    iptables: IptablesSettings = IptablesSettings()
    nftables: NftablesSettings = NftablesSettings()
    ipvs: IpvsSettings = IpvsSettings()
    winkernel: WinkernelSettings = WinkernelSettings()
    conntrack: ConntrackSettings = ConntrackSettings()
    logging: LoggingSettings = LoggingSettings()
    feature_gates: Mapping[str, Any] = field(default_factory=dict)

    @property
    def effective_mode(self) -> str:
        return self.mode or modes.DEFAULT_MODE

    @property
    def served_node_port_addresses(self) -> tuple[str, ...]:
        """In nftables mode NodePorts are served on the node's own addresses unless others are given
        (upstream's platformApplyDefaults)."""
        mode = modes.find(self.effective_mode)
        return self.node_port_addresses or (mode.node_ports if mode else ())

    @property
    def sync_period(self) -> float:
        """The mode's own, in seconds."""
        return self._of_mode.sync_period

    @property
    def min_sync_period(self) -> float:
        return self._of_mode.min_sync_period

    @property
    def _of_mode(self) -> IptablesSettings | NftablesSettings | IpvsSettings:
        mode = modes.find(self.effective_mode) or modes.MODES[0]
        settings: IptablesSettings | NftablesSettings | IpvsSettings = getattr(
            self, mode.sections[0]
        )
        return settings


#: Fields whose JSON name is not the camel case of ours.
_JSON_NAMES = {
    "cluster_cidr": "clusterCIDR",
    "exclude_cidrs": "excludeCIDRs",
    "strict_arp": "strictARP",
    "enable_dsr": "enableDSR",
}


#: Fields that are read and checked, and change nothing here; of a section, all that is in it. Those
#: of the dataclasses above are the fields of 1.36 (k8s.io/kube-proxy/config/v1alpha1/types.go).
WITHOUT_EFFECT = frozenset(
    {
        "clientConnection.acceptContentTypes",
        "clientConnection.burst",
        "clientConnection.contentType",
        "clientConnection.qps",
        "configSyncPeriod",
        "conntrack.maxPerCore",
        "conntrack.min",
        "enableProfiling",
        "featureGates",
        "logging.flushFrequency",
        "logging.format",
        "logging.options",
        "logging.vmodule",
        "oomScoreAdj",
        "portRange",
        "showHiddenMetricsForVersion",
        "windowsRunAsService",
        "winkernel",
    }
)


def json_name(name: str) -> str:
    """The field's name in a file."""
    head, *rest = name.split("_")
    return _JSON_NAMES.get(name, head + "".join(part.capitalize() for part in rest))


def load(path: str) -> KubeProxyConfiguration:
    """A configuration file. Raises ConfigError with upstream's wording for unknown fields."""
    try:
        raw = yamlfile.read(Path(path))
    except (OSError, yamlfile.YamlFileError) as error:
        raise ConfigError(f"failed to load kube-proxy configuration {path}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: not a {KIND}: a mapping is wanted")
    if (raw.get("apiVersion"), raw.get("kind")) != (API_VERSION, KIND):
        raise ConfigError(
            f'{path}: no kind "{raw.get("kind")}" is registered for version "{raw.get("apiVersion")}"; '
            f"wanted apiVersion: {API_VERSION}, kind: {KIND}"
        )
    body = {key: value for key, value in raw.items() if key not in ("apiVersion", "kind")}
    try:
        return decode(body)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def decode(body: Mapping[str, Any]) -> KubeProxyConfiguration:
    """The fields of a file, without its apiVersion and kind. Raises ConfigError that names the
    field."""
    decoded: KubeProxyConfiguration = _decode(KubeProxyConfiguration(), body, "")
    return with_defaults(decoded)


def with_defaults(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """What upstream fills in where a file says 0 or leaves a part of an address out
    (SetDefaults)."""
    ipv6 = ":" in config.bind_address
    healthz, metrics = ("::", "::1") if ipv6 else ("0.0.0.0", "127.0.0.1")
    return replace(
        config,
        bind_address=config.bind_address or "0.0.0.0",
        healthz_bind_address=append_port(config.healthz_bind_address or healthz, HEALTHZ_PORT),
        metrics_bind_address=append_port(config.metrics_bind_address or metrics, METRICS_PORT),
        config_sync_period=config.config_sync_period or 900.0,
        iptables=replace(
            config.iptables,
            sync_period=config.iptables.sync_period or 30.0,
            min_sync_period=config.iptables.min_sync_period or 1.0,
        ),
        nftables=replace(
            config.nftables,
            sync_period=config.nftables.sync_period or 30.0,
            min_sync_period=config.nftables.min_sync_period or 1.0,
        ),
        ipvs=replace(config.ipvs, sync_period=config.ipvs.sync_period or 30.0),
    )


def append_port(address: str, port: int) -> str:
    """HOST:PORT as it is, an IP address with the port appended; anything else is left to
    validation."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return f"[{address}]:{port}" if parsed.version == 6 else f"{address}:{port}"


def dump(config: KubeProxyConfiguration) -> str:
    """A file that load() reads back to the same, with every field, keys sorted
    (--write-config-to)."""
    return str(
        yaml.safe_dump(
            {"apiVersion": API_VERSION, "kind": KIND, **_encode(config)}, default_flow_style=False
        )
    )


def _encode(value: Any) -> dict[str, Any]:
    """Durations as Go writes them: in these settings every float but qps is one."""
    out: dict[str, Any] = {}
    for item in fields(value):
        current, name = getattr(value, item.name), json_name(item.name)
        if is_dataclass(current):
            out[name] = _encode(current)
        elif isinstance(current, tuple):
            out[name] = list(current) or None
        elif isinstance(current, float):
            out[name] = current if item.name == "qps" else format_duration(current)
        elif not isinstance(current, Mapping) or current:
            out[name] = dict(current) if isinstance(current, Mapping) else current
    return out


def _decode(default: Any, body: Any, where: str) -> Any:
    if not isinstance(body, Mapping):
        raise ConfigError(f"{where or KIND}: Invalid value: {body!r}: must be a mapping")
    known = {json_name(item.name): item.name for item in fields(default)}
    hints = get_type_hints(type(default))
    for key in body:
        if key not in known:
            raise ConfigError(f'strict decoding error: unknown field "{where}{key}"')
    values = {}
    for key, value in body.items():
        if value is None:
            continue
        name = known[key]
        current = getattr(default, name)
        if is_dataclass(current):
            values[name] = _decode(current, value, f"{where}{key}.")
        else:
            values[name] = _scalar(hints[name], value, f"{where}{key}")
    return replace(default, **values)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    converters: dict[Any, Callable[[Any], Any]] = {
        str: lambda v: v if isinstance(v, str) else _refuse(v),
        bool: lambda v: v if isinstance(v, bool) else _refuse(v),
        int: lambda v: v if isinstance(v, int) and not isinstance(v, bool) else _refuse(v),
        float: lambda v: (
            float(v)
            if isinstance(v, int | float) and not isinstance(v, bool)
            else parse_duration(v)
        ),
        tuple[str, ...]: lambda v: tuple(v) if isinstance(v, list) else _refuse(v),
        tuple[Any, ...]: lambda v: tuple(v) if isinstance(v, list) else _refuse(v),
    }
    convert = converters.get(kind) or (lambda v: v if isinstance(v, dict) else _refuse(v))
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: Invalid value: {value!r}: {error}") from error


def _refuse(value: Any) -> Any:
    raise ValueError(f"unexpected {type(value).__name__}")
