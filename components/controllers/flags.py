"""Command-line flags, with kube-controller-manager's names and defaults
(https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/).
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.base.golang import flag, parse_bool, parse_duration

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: The other flags of 1.36: of cloud providers, of its serving and logging, of controllers that are
#: not here (cmd/kube-controller-manager/app/options and what it includes).
WITHOUT_EFFECT = frozenset(
    """
    allow-metric-labels allow-metric-labels-manifest allow-untagged-cloud attach-detach-reconcile-sync-period
    authentication-kubeconfig authentication-skip-lookup authentication-token-webhook-cache-ttl
    authentication-tolerate-lookup-failure authorization-always-allow-paths authorization-kubeconfig
    authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl cert-dir
    cidr-allocator-type client-ca-file cloud-config cloud-provider cluster-name
    cluster-signing-duration cluster-signing-kube-apiserver-client-cert-file
    cluster-signing-kube-apiserver-client-key-file cluster-signing-kubelet-client-cert-file
    cluster-signing-kubelet-client-key-file cluster-signing-kubelet-serving-cert-file
    cluster-signing-kubelet-serving-key-file cluster-signing-legacy-unknown-cert-file
    cluster-signing-legacy-unknown-key-file concurrent-cron-job-syncs concurrent-daemonset-syncs
    concurrent-deployment-syncs concurrent-device-taint-eviction-syncs concurrent-endpoint-syncs
    concurrent-ephemeralvolume-syncs concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs
    concurrent-job-syncs concurrent-namespace-syncs concurrent-rc-syncs concurrent-replicaset-syncs
    concurrent-resource-quota-syncs concurrent-resourceclaim-syncs concurrent-service-endpoint-syncs
    concurrent-service-syncs concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs
    concurrent-ttl-after-finished-syncs concurrent-validating-admission-policy-status-syncs configure-cloud-routes
    contention-profiling controller-start-interval disable-attach-detach-reconcile-sync
    disable-force-detach-on-timeout disable-http2-serving disabled-metrics emulated-version
    enable-dynamic-provisioning enable-garbage-collector enable-hostpath-provisioner enable-leader-migration
    endpoint-updates-batch-period endpointslice-updates-batch-period external-cloud-volume-plugin feature-gates
    flex-volume-plugin-dir http2-max-streams-per-connection
    kube-api-burst kube-api-content-type kube-api-qps leader-elect-lease-duration
    leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name
    leader-elect-resource-namespace leader-elect-retry-period leader-migration-config
    legacy-service-account-token-clean-up-period log-flush-frequency log-json-info-buffer-size log-json-split-stream
    log-text-info-buffer-size log-text-split-stream logging-format master min-compatibility-version
    min-resync-period mirroring-concurrent-service-endpoint-syncs mirroring-endpointslice-updates-batch-period
    mirroring-max-endpoints-per-subset namespace-sync-period node-sync-period
    permit-address-sharing permit-port-sharing profiling pv-recycler-increment-timeout-nfs
    pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs pv-recycler-pod-template-filepath-hostpath
    pv-recycler-pod-template-filepath-nfs pv-recycler-timeout-increment-hostpath pvclaimbinder-sync-period
    requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
    requestheader-group-headers requestheader-uid-headers requestheader-username-headers resource-quota-sync-period
    route-reconciliation-period service-account-private-key-file
    show-hidden-metrics-for-version tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version
    tls-private-key-file tls-sni-cert-key vmodule
    """.split()
)


@dataclass(frozen=True)
class Autoscaling:
    """The flags of the HorizontalPodAutoscaler controller; durations are in seconds.

    While a pod is not ready, its use of the processor does not count until cpu_initialization has
    passed since its start, and later only if it has been ready before. A change of its readiness
    within readiness_delay after the start does not show that it has been ready.
    """

    period: float = 15.0
    downscale_stabilization: float = 300.0
    cpu_initialization: float = 300.0
    readiness_delay: float = 30.0
    tolerance: float = 0.1


@dataclass(frozen=True)
class Options:
    """The parsed flags; durations are in seconds, and cluster_cidrs has at most one per family."""

    kubeconfig: str = ""
    controllers: tuple[str, ...] = ("*",)
    allocate_node_cidrs: bool = False
    cluster_cidrs: tuple[Network, ...] = ()
    service_cidrs: tuple[Network, ...] = ()
    mask_size_ipv4: int = 24
    mask_size_ipv6: int = 64
    root_ca_file: str = ""
    signing_certificate: str = ""
    signing_key: str = ""
    node_monitor_period: float = 5.0
    node_monitor_grace_period: float = 50.0
    node_startup_grace_period: float = 60.0
    node_eviction_rate: float = 0.1
    secondary_node_eviction_rate: float = 0.01
    unhealthy_zone_threshold: float = 0.55
    large_cluster_size_threshold: int = 50
    max_endpoints_per_slice: int = 100
    autoscaling: Autoscaling = Autoscaling()
    terminated_pod_gc_threshold: int = 12500
    bind_address: str = "127.0.0.1"
    secure_port: int = 10257
    leader_elect: bool = True
    use_service_account_credentials: bool = False
    verbosity: int = 0


def networks(text: str) -> tuple[Network, ...]:
    """Parses one CIDR, or two of different families with a comma between them."""
    try:
        parts = [part.strip() for part in text.split(",")]
        parsed = tuple(ipaddress.ip_network(part) for part in parts if part)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"invalid CIDR address: {error}") from error
    if len(parsed) > 2 or len({network.version for network in parsed}) != len(parsed):
        raise argparse.ArgumentTypeError("at most one CIDR of each IP family may be given")
    return parsed


def parser(known: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The flags. known lists the names that --controllers may contain, for the help."""
    out = argparse.ArgumentParser(prog="kube-controller-manager", allow_abbrev=False)
    add = out.add_argument
    add("--kubeconfig", required=True, help="file with the API server's address and credentials")
    add(
        "--controllers",
        default="*",
        help="* enables all, foo enables and -foo disables a controller: " + ", ".join(known),
    )
    add("--allocate-node-cidrs", type=flag(parse_bool), nargs="?", const=True, default=False)
    add(
        "--cluster-cidr",
        type=networks,
        default=(),
        help="range of pod addresses, or one range of each IP family",
    )
    add("--service-cluster-ip-range", type=networks, default=())
    add("--node-cidr-mask-size", type=int, default=0)
    add("--node-cidr-mask-size-ipv4", type=int, default=0)
    add("--node-cidr-mask-size-ipv6", type=int, default=0)
    add("--root-ca-file", default="")
    add("--cluster-signing-cert-file", default="")
    add("--cluster-signing-key-file", default="")
    add("--node-monitor-period", type=flag(parse_duration), default=5.0)
    add("--node-monitor-grace-period", type=flag(parse_duration), default=50.0)
    add("--node-startup-grace-period", type=flag(parse_duration), default=60.0)
    add("--node-eviction-rate", type=float, default=0.1, help="nodes a second in a zone")
    add("--secondary-node-eviction-rate", type=float, default=0.01)
    add("--unhealthy-zone-threshold", type=float, default=0.55)
    add("--large-cluster-size-threshold", type=int, default=50)
    add("--max-endpoints-per-slice", type=int, default=100)
    _add_autoscaling(out)
    add("--terminated-pod-gc-threshold", type=int, default=12500)
    add("--bind-address", default="127.0.0.1")
    add(
        "--secure-port",
        type=int,
        default=10257,
        help="port of /healthz and /metrics, over plain HTTP; 0 disables them",
    )
    add("--leader-elect", type=flag(parse_bool), nargs="?", const=True, default=True)
    add(
        "--use-service-account-credentials",
        type=flag(parse_bool),
        nargs="?",
        const=True,
        default=False,
        help="every controller acts under a ServiceAccount of its own",
    )
    add("-v", "--v", dest="verbosity", type=int, default=0)
    return out


def _add_autoscaling(out: argparse.ArgumentParser) -> None:
    defaults = Autoscaling()
    for name, seconds in (
        ("sync-period", defaults.period),
        ("downscale-stabilization", defaults.downscale_stabilization),
        ("cpu-initialization-period", defaults.cpu_initialization),
        ("initial-readiness-delay", defaults.readiness_delay),
    ):
        duration = flag(parse_duration)
        out.add_argument(f"--horizontal-pod-autoscaler-{name}", type=duration, default=seconds)
    tolerance = "--horizontal-pod-autoscaler-tolerance"
    out.add_argument(tolerance, type=float, default=defaults.tolerance)


def _autoscaling(given: argparse.Namespace) -> Autoscaling:
    return Autoscaling(
        period=given.horizontal_pod_autoscaler_sync_period,
        downscale_stabilization=given.horizontal_pod_autoscaler_downscale_stabilization,
        cpu_initialization=given.horizontal_pod_autoscaler_cpu_initialization_period,
        readiness_delay=given.horizontal_pod_autoscaler_initial_readiness_delay,
        tolerance=given.horizontal_pod_autoscaler_tolerance,
    )


def parse(argv: Sequence[str], known: Sequence[str] = ()) -> Options:
    """Parses the flags; prints an error and raises SystemExit(2) when they are wrong.

    known lists the names that --controllers may contain.
    """
    flags = parser(known)
    return options(flags, flags.parse_args(list(argv)), known)


def options(
    parser: argparse.ArgumentParser,
    given: argparse.Namespace,
    known: Sequence[str] = (),
) -> Options:
    """Checks the given flags as a whole, and calls parser.error with what is wrong."""
    names = tuple(name.strip() for name in given.controllers.split(",") if name.strip())
    for name in names:
        if known and name != "*" and name.removeprefix("-") not in known:
            parser.error(f'"{name.removeprefix("-")}" is not in the list of known controllers')
    if given.allocate_node_cidrs and not given.cluster_cidr:
        parser.error("--cluster-cidr must be set when --allocate-node-cidrs is")
    if problem := _wrong_mask_flags(given):
        parser.error(problem)
    sizes = _mask_sizes(given)
    for network in given.cluster_cidr if given.allocate_node_cidrs else ():
        size = sizes[network.version]
        if not network.prefixlen <= size <= min(network.max_prefixlen, network.prefixlen + 16):
            parser.error(
                f"node CIDR mask size {size} does not fit the cluster CIDR {network}: it must lie "
                "between "
                f"{network.prefixlen} and {min(network.max_prefixlen, network.prefixlen + 16)}"
            )
    return Options(
        kubeconfig=given.kubeconfig,
        controllers=names,
        allocate_node_cidrs=given.allocate_node_cidrs,
        cluster_cidrs=given.cluster_cidr,
        service_cidrs=given.service_cluster_ip_range,
        mask_size_ipv4=sizes[4],
        mask_size_ipv6=sizes[6],
        root_ca_file=given.root_ca_file,
        signing_certificate=given.cluster_signing_cert_file,
        signing_key=given.cluster_signing_key_file,
        node_monitor_period=given.node_monitor_period,
        node_monitor_grace_period=given.node_monitor_grace_period,
        node_startup_grace_period=given.node_startup_grace_period,
        node_eviction_rate=given.node_eviction_rate,
        secondary_node_eviction_rate=given.secondary_node_eviction_rate,
        unhealthy_zone_threshold=given.unhealthy_zone_threshold,
        large_cluster_size_threshold=given.large_cluster_size_threshold,
        max_endpoints_per_slice=given.max_endpoints_per_slice,
        autoscaling=_autoscaling(given),
        terminated_pod_gc_threshold=given.terminated_pod_gc_threshold,
        bind_address=given.bind_address,
        secure_port=given.secure_port,
        leader_elect=given.leader_elect,
        use_service_account_credentials=given.use_service_account_credentials,
        verbosity=given.verbosity,
    )


def _wrong_mask_flags(given: argparse.Namespace) -> str:
    """Checks the mask size flags against the ranges, with upstream's texts (setNodeCIDRMaskSizes).

    Returns an empty text when they fit.
    """
    versions = {network.version for network in given.cluster_cidr}
    own = {4: given.node_cidr_mask_size_ipv4, 6: given.node_cidr_mask_size_ipv6}
    if given.node_cidr_mask_size and len(versions) > 1:
        return "usage of --node-cidr-mask-size is not allowed with dual-stack clusters"
    if given.node_cidr_mask_size and any(own.values()):
        return (
            "usage of --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6 is not allowed if "
            "--node-cidr-mask-size is set. For dual-stack clusters please unset it and use "
            "IPFamily specific flags"
        )
    for version, other in ((4, 6), (6, 4)):
        if own[version] and versions == {other}:
            text = f"usage of --node-cidr-mask-size-ipv{version} is not allowed"
            return f"{text} for a single-stack IPv{other} cluster"
    return ""


def _mask_sizes(given: argparse.Namespace) -> dict[int, int]:
    single = given.node_cidr_mask_size
    return {
        4: given.node_cidr_mask_size_ipv4 or single or 24,
        6: given.node_cidr_mask_size_ipv6 or single or 64,
    }
