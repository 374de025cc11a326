"""Flags and KubeProxyConfiguration: reading, defaults, validation."""
