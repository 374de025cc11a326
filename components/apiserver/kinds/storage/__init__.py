"""Storage resources: volumes, claims, classes, and those of CSI drivers."""
