"""What every component's process needs, whatever it does: logs, signals, health, metrics, files. See README.md."""
