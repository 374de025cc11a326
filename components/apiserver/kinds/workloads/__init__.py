"""Workloads that create pods, such as Deployments and Jobs."""
