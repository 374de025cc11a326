"""StatefulSet (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/)."""
