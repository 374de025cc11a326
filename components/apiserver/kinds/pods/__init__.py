"""Pods and pod templates: defaults, validation, columns."""
