"""Reads KubeletConfiguration (kubelet.config.k8s.io/v1beta1) and the flags into frozen Settings.

Only fields that change what this kubelet does are accepted. Any other key is an error that names
the file, the key and the allowed keys, so that no setting is ignored silently.
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
"""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewire.components.base.golang import flag, parse_bool, parse_duration
from kubewire.components.kubeapi.quantity import value
from kubewire.components.kubelet.backoff import DEFAULT_BACKOFF, BackoffPolicy

API_VERSION = "kubelet.config.k8s.io/v1beta1"


class ConfigurationError(ValueError):
    """A flag or a key of the configuration file is wrong; the text names it and what is allowed."""


@dataclass(frozen=True)
class Taint:
    """A taint with which the Node is registered."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. Durations are in seconds, sizes in bytes."""

    node_name: str
    kubeconfig: Path | None = None
    runtime_endpoint: Path = Path("/run/kubewire/runtime.sock")
    image_catalogue: Path | None = None
    node_ips: tuple[str, ...] = ()
    register_node: bool = True
    taints: tuple[Taint, ...] = ()
    node_labels: Mapping[str, str] = field(default_factory=dict)
    root_dir: Path = Path("/var/lib/kubelet")
    pod_logs_dir: Path = Path("/var/log/pods")
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    cni_bin_dir: Path = Path("/opt/cni/bin")
    netns_dir: Path = Path("/run/netns")

    address: str = "0.0.0.0"
    port: int = 10250
    healthz_bind_address: str = "127.0.0.1"
    healthz_port: int = 10248
    tls_cert_file: Path | None = None
    tls_private_key_file: Path | None = None
    client_ca_file: Path | None = None
    anonymous: bool = False
    authorization_mode: str = "AlwaysAllow"

    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = ""
    resolv_conf: Path = Path("/etc/resolv.conf")
    hosts_file: Path = Path("/etc/hosts")
    max_pods: int = 110
    sync_frequency: float = 60.0
    node_status_update_frequency: float = 10.0
    node_status_report_frequency: float = 300.0
    node_lease_duration: int = 40
    container_log_max_size: int = 10 * 1024 * 1024
    container_log_max_files: int = 5
    static_pod_path: Path | None = None
    file_check_frequency: float = 20.0
    shutdown_grace_period: float = 0.0
    shutdown_grace_period_critical_pods: float = 0.0
    enable_server: bool = True
    fail_swap_on: bool = False
    backoff: BackoffPolicy = DEFAULT_BACKOFF
    config_map_and_secret_strategy: str = "Watch"
    serialize_image_pulls: bool = True
    make_iptables_util_chains: bool = True


def duration(text: object) -> float:
    """The seconds of a Go duration ("1m30s", "0"). Raises ValueError."""
    try:
        return parse_duration(str(text))
    except ValueError as error:
        raise ValueError(f"{error} (write it like 10s, 1m30s or 500ms)") from error


def _texts(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError("must be a list")
    return tuple(str(item) for item in raw)


def _bool(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("must be true or false")
    return raw


def _int(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError("must be an integer")
    return raw


def _path(raw: object) -> Path | None:
    return Path(str(raw)) if raw else None


def _choice(*allowed: str) -> Any:
    def parse(raw: object) -> str:
        if raw not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return str(raw)

    return parse


#: Key of the file -> (field of Settings, function that reads the value, None: see _special()). A
#: key with dots is nested in the file.
FIELDS: dict[str, tuple[str, Any]] = {
    "address": ("address", str),
    "port": ("port", _int),
    "healthzBindAddress": ("healthz_bind_address", str),
    "healthzPort": ("healthz_port", _int),
    "tlsCertFile": ("tls_cert_file", _path),
    "tlsPrivateKeyFile": ("tls_private_key_file", _path),
    "authentication.x509.clientCAFile": ("client_ca_file", _path),
    "authentication.anonymous.enabled": ("anonymous", _bool),
    "authorization.mode": ("authorization_mode", _choice("AlwaysAllow")),
    "clusterDNS": ("cluster_dns", _texts),
    "clusterDomain": ("cluster_domain", str),
    "resolvConf": ("resolv_conf", Path),
    "maxPods": ("max_pods", _int),
    "syncFrequency": ("sync_frequency", duration),
    "nodeStatusUpdateFrequency": ("node_status_update_frequency", duration),
    "nodeStatusReportFrequency": ("node_status_report_frequency", duration),
    "nodeLeaseDurationSeconds": ("node_lease_duration", _int),
    "containerLogMaxSize": ("container_log_max_size", value),
    "containerLogMaxFiles": ("container_log_max_files", _int),
    "containerRuntimeEndpoint": ("runtime_endpoint", None),
    "staticPodPath": ("static_pod_path", _path),
    "fileCheckFrequency": ("file_check_frequency", duration),
    "shutdownGracePeriod": ("shutdown_grace_period", duration),
    "shutdownGracePeriodCriticalPods": ("shutdown_grace_period_critical_pods", duration),
    "enableServer": ("enable_server", _bool),
    "failSwapOn": ("fail_swap_on", _bool),
    "registerNode": ("register_node", _bool),
    "registerWithTaints": ("taints", None),
    "podLogsDir": ("pod_logs_dir", Path),
    "configMapAndSecretChangeDetectionStrategy": (
        "config_map_and_secret_strategy", _choice("Watch", "Get", "Cache")),
    "serializeImagePulls": ("serialize_image_pulls", _bool),
    "makeIPTablesUtilChains": ("make_iptables_util_chains", _bool),
    "crashLoopBackOff.maxContainerRestartPeriod": ("backoff", None),
}  # fmt: skip


#: The other fields of 1.36 (k8s.io/kubelet/config/v1beta1/types.go). A file with one of them is
#: refused, so that nobody waits for what does not happen.
WITHOUT_EFFECT = frozenset(
    """
    allowedUnsafeSysctls authentication.webhook.cacheTTL authentication.webhook.enabled
    authorization.webhook.cacheAuthorizedTTL authorization.webhook.cacheUnauthorizedTTL cgroupDriver cgroupRoot
    cgroupsPerQOS containerLogMaxWorkers containerLogMonitorInterval contentType cpuCFSQuota cpuCFSQuotaPeriod
    cpuManagerPolicy cpuManagerPolicyOptions cpuManagerReconcilePeriod enableContentionProfiling
    enableControllerAttachDetach enableDebugFlagsHandler enableDebuggingHandlers enableProfilingHandler
    enableSystemLogHandler enableSystemLogQuery enforceNodeAllocatable eventBurst eventRecordQPS evictionHard
    evictionMaxPodGracePeriod evictionMinimumReclaim evictionPressureTransitionPeriod evictionSoft
    evictionSoftGracePeriod failCgroupV1 featureGates hairpinMode httpCheckFrequency imageGCHighThresholdPercent
    imageGCLowThresholdPercent imageMaximumGCAge imageMinimumGCAge imagePullCredentialsVerificationPolicy
    imageServiceEndpoint iptablesDropBit iptablesMasqueradeBit kernelMemcgNotification kubeAPIBurst kubeAPIQPS
    kubeReserved kubeReservedCgroup kubeletCgroups localStorageCapacityIsolation logging
    maxOpenFiles maxParallelImagePulls memoryManagerPolicy memoryReservationPolicy memorySwap memoryThrottlingFactor
    mergeDefaultEvictionSettings nodeStatusMaxImages oomScoreAdj podCIDR podPidsLimit podsPerCore
    preloadedImagesVerificationAllowlist protectKernelDefaults providerID qosReserved readOnlyPort registryBurst
    registryPullQPS reservedMemory reservedSystemCPUs rotateCertificates runOnce runtimeRequestTimeout
    seccompDefault serverTLSBootstrap showHiddenMetricsForVersion shutdownGracePeriodByPodPriority
    singleProcessOOMKill staticPodURL staticPodURLHeader streamingConnectionIdleTimeout systemCgroups systemReserved
    systemReservedCgroup tlsCipherSuites tlsCurvePreferences tlsMinVersion topologyManagerPolicy
    topologyManagerPolicyOptions topologyManagerScope tracing userNamespaces volumePluginDir volumeStatsAggPeriod
    """.split()
)


def endpoint(text: str) -> Path:
    """Parses `unix:///run/x.sock` or a plain path. Raises ValueError."""
    if "://" in text and not text.startswith("unix://"):
        raise ValueError("must be unix:// and the path of a socket")
    return Path(text.removeprefix("unix://"))


def taint(text: str) -> Taint:
    """Parses KEY[=VALUE]:EFFECT. Raises ValueError."""
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    pair, _, effect = text.partition(":")
    key, _, taint_value = pair.partition("=")
    if effect not in effects or not key:
        wanted = f"KEY=VALUE:EFFECT, EFFECT one of {', '.join(effects)}"
        raise ValueError(f"invalid taint spec: {text}, want {wanted}")
    return Taint(key, taint_value, effect)


def _special(field_name: str, raw: Any) -> Any:
    """Reads the values of the fields that have no function in FIELDS."""
    if field_name == "runtime_endpoint":
        return endpoint(str(raw))
    if field_name == "taints":
        return tuple(Taint(item["key"], item.get("value") or "", item["effect"]) for item in raw)
    return BackoffPolicy(maximum=duration(raw))


def _flatten(body: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    nested = {key.partition(".")[0] for key in FIELDS if "." in key}
    flat: dict[str, Any] = {}
    for key, raw in body.items():
        path = prefix + key
        inside = path in nested or any(known.startswith(f"{path}.") for known in FIELDS)
        if inside and isinstance(raw, Mapping):
            flat |= _flatten(raw, f"{path}.")
        else:
            flat[path] = raw
    return flat


def read_configuration(text: str, where: str) -> dict[str, Any]:
    """Returns fields of Settings from a KubeletConfiguration in YAML or JSON.

    Raises ConfigurationError.
    """
    from kubewire.components.base import yamlfile

    try:
        body = yamlfile.load(text, where) or {}
    except yamlfile.YamlFileError as error:
        raise ConfigurationError(str(error)) from error
    if not isinstance(body, dict):
        raise ConfigurationError(f"{where}: must be a KubeletConfiguration object")
    head = (body.pop("apiVersion", None), body.pop("kind", None))
    if head != (API_VERSION, "KubeletConfiguration"):
        wanted = f"apiVersion: {API_VERSION} and kind: KubeletConfiguration"
        raise ConfigurationError(f"{where}: must have {wanted}, found {head[0]}, {head[1]}")
    try:
        return decode(body)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def decode(body: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes a file's fields into fields of Settings. body has no apiVersion and kind.

    Raises ConfigurationError.
    """
    fields: dict[str, Any] = {}
    for key, raw in _flatten(body).items():
        if key not in FIELDS:
            allowed = ", ".join(sorted(FIELDS))
            raise ConfigurationError(f'unknown field "{key}"; allowed are {allowed}')
        name, parse = FIELDS[key]
        try:
            fields[name] = _special(name, raw) if parse is None else parse(raw)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{key}: {json.dumps(raw)}: {error}") from error
    return fields


def parser() -> argparse.ArgumentParser:
    """The flags; a flag overrides the same field of --config."""
    flags = argparse.ArgumentParser(
        "kubelet",
        description="Runs the pods that are bound to this node.",
    )
    flags.add_argument("--kubeconfig", type=Path, help="how to reach the API server (required)")
    flags.add_argument("--config", type=Path, help="a KubeletConfiguration file")
    flags.add_argument(
        "--hostname-override",
        default="",
        help="the node's name (default: the host name)",
    )
    flags.add_argument("--node-ip", default="", help="the node's address, or two: IPV4,IPV6")
    flags.add_argument("--node-labels", default="", help="labels of the Node: a=b,c=d")
    flags.add_argument(
        "--register-node",
        type=flag(parse_bool),
        help="register the Node (default true)",
    )
    flags.add_argument("--register-with-taints", help="taints of the Node: KEY=VALUE:EFFECT,...")
    flags.add_argument(
        "--container-runtime-endpoint",
        type=endpoint,
        help="the fork server's socket: unix:///PATH",
    )
    flags.add_argument(
        "--image-catalogue",
        type=Path,
        help="a file with additional images (kubewire's own flag)",
    )
    flags.add_argument("--root-dir", type=Path)
    flags.add_argument("--cert-dir", type=Path, help="the folder of kubelet.crt and kubelet.key")
    flags.add_argument("--tls-cert-file", type=Path)
    flags.add_argument("--tls-private-key-file", type=Path)
    flags.add_argument("--client-ca-file", type=Path)
    flags.add_argument("--address")
    flags.add_argument("--port", type=int)
    flags.add_argument(
        "--cni-conf-dir",
        type=Path,
        help="containerd's conf_dir (default /etc/cni/net.d)",
    )
    flags.add_argument(
        "--cni-bin-dir",
        type=Path,
        help="containerd's bin_dir (default /opt/cni/bin)",
    )
    flags.add_argument("-v", "--v", type=int, default=0, help="log verbosity")
    return flags


def settings(argv: Sequence[str]) -> tuple[Settings, int]:
    """Returns the settings and the log verbosity.

    Raises ConfigurationError. For unknown flags, argparse prints an error and ends the process.
    """
    given = parser().parse_args(argv)
    fields: dict[str, Any] = {}
    if given.config:
        try:
            text = given.config.read_text()
        except OSError as error:
            raise ConfigurationError(f"--config {given.config}: {error.strerror}") from error
        fields = read_configuration(text, str(given.config))
    same_name = {
        "kubeconfig": given.kubeconfig,
        "image_catalogue": given.image_catalogue,
        "register_node": given.register_node,
        "runtime_endpoint": given.container_runtime_endpoint,
        "root_dir": given.root_dir,
        "tls_cert_file": given.tls_cert_file,
        "tls_private_key_file": given.tls_private_key_file,
        "client_ca_file": given.client_ca_file,
        "address": given.address,
        "port": given.port,
        "cni_conf_dir": given.cni_conf_dir,
        "cni_bin_dir": given.cni_bin_dir,
    }
    fields |= {name: raw for name, raw in same_name.items() if raw is not None}
    fields["node_name"] = (given.hostname_override or socket.gethostname()).lower()
    fields["node_ips"] = _node_ips(given.node_ip)
    fields["node_labels"] = _labels(given.node_labels)
    if given.register_with_taints is not None:
        try:
            items = filter(None, given.register_with_taints.split(","))
            fields["taints"] = tuple(taint(item) for item in items)
        except ValueError as error:
            raise ConfigurationError(f"--register-with-taints: {error}") from error
    return _complete(Settings(**fields), given.cert_dir), given.v


def _node_ips(text: str) -> tuple[str, ...]:
    """Parses --node-ip, with the error texts of upstream's validateNodeIPs (cmd/kubelet/app)."""
    ips = tuple(filter(None, text.split(",")))
    try:
        versions = [ipaddress.ip_address(ip).version for ip in ips]
    except ValueError:
        raise ConfigurationError(f'bad --node-ip "{text}": could not parse IP address') from None
    if len(ips) > len(set(versions)):
        wanted = "must contain either a single IP or a dual-stack pair of IPs"
        raise ConfigurationError(f'bad --node-ip "{text}"; {wanted}')
    return ips


def _labels(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, equals, label_value = item.partition("=")
        if not equals:
            raise ConfigurationError(f"--node-labels: {item!r} must have the form key=value")
        pairs[key] = label_value
    return pairs


def _complete(given: Settings, cert_dir: Path | None) -> Settings:
    """Fills in the serving certificate and the client CA if kubeadm's files exist."""
    pki = cert_dir or given.root_dir / "pki"
    certificate = pki / "kubelet.crt"
    changes: dict[str, Any] = {}
    if given.tls_cert_file is None and certificate.exists():
        changes = {"tls_cert_file": certificate, "tls_private_key_file": pki / "kubelet.key"}
    if given.client_ca_file is None and Path("/etc/kubernetes/pki/ca.crt").exists():
        changes["client_ca_file"] = Path("/etc/kubernetes/pki/ca.crt")
    return dataclasses.replace(given, **changes)
