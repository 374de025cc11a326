"""Deployment (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/)."""
