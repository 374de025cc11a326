"""The kubelet's metrics, with upstream's names
(https://kubernetes.io/docs/reference/instrumenting/metrics/)."""

from __future__ import annotations

from kubewire.components.base.prometheus import Registry

_LATENCY = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of a kubelet, in a registry of its own."""

    def __init__(self, node_name: str) -> None:
        registry = Registry()
        self.registry = registry
        self.node_name = registry.gauge(
            "kubelet_node_name",
            "The node's name. The count is always 1.",
            "node",
        )
        self.node_name.set(1, node_name)
        self.running_pods = registry.gauge(
            "kubelet_running_pods",
            "Number of pods that have a running pod sandbox",
        )
        self.running_containers = registry.gauge(
            "kubelet_running_containers",
            "Number of containers currently running",
            "container_state",
        )
        self.start = registry.histogram(
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
            buckets=_LATENCY,
        )
        self.operations = registry.counter(
            "kubelet_runtime_operations_total",
            "Cumulative number of runtime operations",
            "operation_type",
        )
        self.operation_errors = registry.counter(
            "kubelet_runtime_operations_errors_total",
            "Cumulative number of runtime operation errors",
            "operation_type",
        )
        self.preemptions = registry.counter(
            "kubelet_preemptions",
            "Cumulative number of pod preemptions by preemption resource",
            "preemption_signal",
        )
        self.probes = registry.counter(
            "prober_probe_total",
            "Cumulative number of probes by result",
            "probe_type",
            "result",
        )
        self.status_writes = registry.gauge(
            "kubewire_kubelet_pod_status_requests",
            "Requests made to write pod statuses",
        )
        self.restarts = registry.counter(
            "kubewire_kubelet_container_restarts_total",
            "Containers started again after they had ended",
        )

        # Service level indicators, at /metrics/slis (KEP-3466).
        self.slis = Registry()
        self._healthy = self.slis.gauge(
            "kubernetes_healthcheck",
            "[STABLE] This metric records the result of a single healthcheck.",
            "name",
            "type",
        )
        self._checks = self.slis.counter(
            "kubernetes_healthchecks_total",
            "[STABLE] This metric records the results of all healthcheck.",
            "name",
            "status",
            "type",
        )

    def checked(self, name: str, healthy: bool) -> None:
        """Counts a health check that was asked for."""
        self._healthy.set(float(healthy), name, "healthz")
        self._checks.inc(name, "success" if healthy else "error", "healthz")

    def probed(self, kind: str, success: bool) -> None:
        self.probes.inc(kind.capitalize(), "successful" if success else "failed")
