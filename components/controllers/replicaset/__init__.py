"""ReplicaSet (https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/)."""
