"""The subcommands of kubewire, one module each; cli.py parses their options."""
