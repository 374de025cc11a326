"""The sandbox: its namespaces, its files, and the ways in."""
