"""PersistentVolumes: binding to claims, protection, provisioning, and claims of ephemeral volumes."""
