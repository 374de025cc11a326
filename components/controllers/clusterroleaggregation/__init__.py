"""Collects the rules of ClusterRoles with an aggregationRule."""
