"""Cluster resources: Nodes, Namespaces, RBAC, CustomResourceDefinitions, Events, Leases."""
