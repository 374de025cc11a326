"""Garbage collection by owner references, of orphaned pods, and of finished Jobs
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/)."""
