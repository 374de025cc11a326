"""From an empty sandbox to a cluster: the steps, and what they start and write."""
