"""DaemonSet (https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/)."""
