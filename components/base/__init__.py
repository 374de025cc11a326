"""Modules for any long-running component: logs, signals, health, metrics, files. See README.md."""
