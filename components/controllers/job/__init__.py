"""Job (https://kubernetes.io/docs/concepts/workloads/controllers/job/)."""
