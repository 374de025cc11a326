"""Subcommands of kubewire, a module each; cli.py parses their options."""
