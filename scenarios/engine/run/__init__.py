"""Running cases: labs are brought up and shared, steps run, expectations are asked until they hold."""
