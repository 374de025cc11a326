"""CustomResourceDefinitions: structural schemas and the objects that they describe."""
