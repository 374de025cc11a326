"""Controllers of nodes: pod ranges (IPAM) and health (lifecycle, taints, evictions)."""
