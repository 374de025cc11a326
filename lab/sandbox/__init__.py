"""The sandbox of a lab: its namespaces, its root file system, and the sockets that lead in."""
