"""Pod networks, a folder each: their agents and their CNI plugins. See README.md."""
