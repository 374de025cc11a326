"""Config and storage resources: ConfigMaps, Secrets, volumes."""
