"""Controllers of nodes: pod address ranges (IPAM) and health (lifecycle, taints, evictions)."""
