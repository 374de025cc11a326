"""Config resources: ConfigMaps and Secrets."""
