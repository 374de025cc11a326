"""kube-proxy's metrics under upstream's names (pkg/proxy/metrics); the help texts are ours.

https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

import time

from kubewire.components.base import process
from kubewire.components.base.prometheus import Registry, exponential_buckets

_SYNC_BUCKETS = exponential_buckets(0.001, 2, 15)
#: Upstream merges its four ranges into a list that begins with a zero, so le="0" is among them.
_PROGRAMMING_BUCKETS = (
    *(0.0, 0.25, 0.5),
    *(float(i) for i in range(1, 60)),
    *(float(i) for i in range(60, 120, 5)),
    *(float(i) for i in range(120, 301, 30)),
)
_FAMILY = "ip_family"
_IPTABLES, _NFTABLES = "iptables", "nftables"


class Metrics:
    """One set per process; ip_family is IPv4 or IPv6. What another mode has can be set here and is
    not shown."""

    def __init__(self, mode: str = _IPTABLES) -> None:
        self.registry = Registry()
        self._mode = mode
        self._hidden = Registry()
        self._add_syncs()
        self._add_changes()
        self._add_iptables()
        self._add_nftables()
        self._add_conntrack()
        self._add_process()

    def _for_modes(self, *modes: str) -> Registry:
        return self.registry if self._mode in modes else self._hidden

    def _add_syncs(self) -> None:
        registry, partial = self.registry, self._for_modes(_IPTABLES, _NFTABLES)
        self.sync_duration = registry.histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "How long a sync of the rules took",
            _FAMILY,
            buckets=_SYNC_BUCKETS,
        )
        self.sync_full_duration = partial.histogram(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "How long syncs took that wrote all rules",
            _FAMILY,
            buckets=_SYNC_BUCKETS,
        )
        self.sync_partial_duration = partial.histogram(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "How long syncs took that wrote only what had changed",
            _FAMILY,
            buckets=_SYNC_BUCKETS,
        )
        self.programming_duration = registry.histogram(
            "kubeproxy_network_programming_duration_seconds",
            "From the change of a pod or Service to the rules that follow from it",
            _FAMILY,
            buckets=_PROGRAMMING_BUCKETS,
        )
        self.last_sync = registry.gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When the rules were last synced with success",
            _FAMILY,
        )
        self.last_queued = registry.gauge(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "When a sync was last asked for",
            _FAMILY,
        )
        self.no_local_endpoints = registry.gauge(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with traffic policy Local that have endpoints, but none on this node",
            _FAMILY,
            "traffic_policy",
        )

    def _add_changes(self) -> None:
        registry = self.registry
        self.endpoint_changes = registry.counter(
            "kubeproxy_sync_proxy_rules_endpoint_changes_total", "Changes of endpoints seen so far"
        )
        self.endpoint_changes_pending = registry.gauge(
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
            "Changes of endpoints not yet in the rules",
        )
        self.service_changes = registry.counter(
            "kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services seen so far"
        )
        self.service_changes_pending = registry.gauge(
            "kubeproxy_sync_proxy_rules_service_changes_pending",
            "Changes of Services not yet in the rules",
        )

    def _add_iptables(self) -> None:
        registry = self._for_modes(_IPTABLES)
        self.restore_failures = self._for_modes(_IPTABLES, "ipvs").counter(
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
            "Calls of iptables-restore that failed",
            _FAMILY,
        )
        self.partial_restore_failures = registry.counter(
            "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
            "Calls of iptables-restore for only a part of the rules that failed",
            _FAMILY,
        )
        self.rules_total = registry.gauge(
            "kubeproxy_sync_proxy_rules_iptables_total",
            "iptables rules of kube-proxy",
            "table",
            _FAMILY,
        )
        self.rules_last_sync = registry.gauge(
            "kubeproxy_sync_proxy_rules_iptables_last",
            "iptables rules that the last sync wrote",
            "table",
            _FAMILY,
        )

    def _add_nftables(self) -> None:
        registry = self._for_modes(_NFTABLES)
        self.nftables_sync_failures = registry.counter(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "Transactions that nft refused",
            _FAMILY,
        )
        self.nftables_cleanup_failures = registry.counter(
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
            "Removals of stale chains that nft refused",
            _FAMILY,
        )

    def _add_conntrack(self) -> None:
        self.conntrack_duration = self.registry.histogram(
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "How long a search for stale conntrack entries took",
            _FAMILY,
            buckets=_SYNC_BUCKETS,
        )
        self.conntrack_deleted = self.registry.counter(
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "Stale conntrack entries deleted so far",
            _FAMILY,
        )

    def _add_process(self) -> None:
        registry = self.registry
        self.healthz = registry.counter(
            "kubeproxy_proxy_healthz_total", "Answers of /healthz by HTTP status", "code"
        )
        self.livez = registry.counter(
            "kubeproxy_proxy_livez_total", "Answers of /livez by HTTP status", "code"
        )
        self._started = time.time()

    def text(self) -> str:
        """What /metrics answers."""
        return self.registry.text() + process.metrics_text(self._started)
