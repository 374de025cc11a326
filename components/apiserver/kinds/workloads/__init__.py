"""Workload resources besides the pod: Deployments, Jobs and the like."""
