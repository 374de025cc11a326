"""The status of PodDisruptionBudgets, on which the eviction API decides."""
