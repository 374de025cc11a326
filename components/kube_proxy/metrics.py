"""kube-proxy's metrics under upstream's names (pkg/proxy/metrics)."""

from __future__ import annotations

import time

from components.machinery.prometheus import Registry, exponential_buckets

_SYNC_BUCKETS = exponential_buckets(0.001, 2, 15)
_PROGRAMMING_BUCKETS = (
    *(0.25, 0.5),
    *(float(i) for i in range(1, 60)),
    *(float(i) for i in range(60, 120, 5)),
    *(float(i) for i in range(120, 301, 30)),
)


class Metrics:
    """One set per process; ip_family is IPv4 or IPv6."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        prefix, family = "kubeproxy_", "ip_family"
        self.sync_duration = registry.histogram(
            prefix + "sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            family,
            buckets=_SYNC_BUCKETS,
        )
        self.sync_full_duration = registry.histogram(
            prefix + "sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs",
            family,
            buckets=_SYNC_BUCKETS,
        )
        self.sync_partial_duration = registry.histogram(
            prefix + "sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial resyncs",
            family,
            buckets=_SYNC_BUCKETS,
        )
        self.programming_duration = registry.histogram(
            prefix + "network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            family,
            buckets=_PROGRAMMING_BUCKETS,
        )
        self.last_sync = registry.gauge(
            prefix + "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            family,
        )
        self.last_queued = registry.gauge(
            prefix + "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            family,
        )
        self.endpoint_changes = registry.counter(
            prefix + "sync_proxy_rules_endpoint_changes_total", "Cumulative proxy rules Endpoint changes", family
        )
        self.endpoint_changes_pending = registry.gauge(
            prefix + "sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes", family
        )
        self.service_changes = registry.counter(
            prefix + "sync_proxy_rules_service_changes_total", "Cumulative proxy rules Service changes", family
        )
        self.service_changes_pending = registry.gauge(
            prefix + "sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes", family
        )
        self.restore_failures = registry.counter(
            prefix + "sync_proxy_rules_iptables_restore_failures_total",
            "Cumulative proxy iptables restore failures",
            family,
        )
        self.partial_restore_failures = registry.counter(
            prefix + "sync_proxy_rules_iptables_partial_restore_failures_total",
            "Cumulative proxy iptables partial restore failures",
            family,
        )
        self.nftables_sync_failures = registry.counter(
            prefix + "sync_proxy_rules_nftables_sync_failures_total", "Cumulative proxy nftables sync failures", family
        )
        self.nftables_cleanup_failures = registry.counter(
            prefix + "sync_proxy_rules_nftables_cleanup_failures_total",
            "Cumulative proxy nftables cleanup failures",
            family,
        )
        self.rules_total = registry.gauge(
            prefix + "sync_proxy_rules_iptables_total",
            "Total number of iptables rules owned by kube-proxy",
            "table",
            family,
        )
        self.rules_last_sync = registry.gauge(
            prefix + "sync_proxy_rules_iptables_last",
            "Number of iptables rules written by kube-proxy in last sync",
            "table",
            family,
        )
        self.healthz = registry.counter(prefix + "proxy_healthz_total", "Cumulative proxy healthz HTTP status", "code")
        self.livez = registry.counter(prefix + "proxy_livez_total", "Cumulative proxy livez HTTP status", "code")
        registry.gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.").set(
            time.time()
        )
