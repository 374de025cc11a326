"""Controllers of namespaces: default objects of a new namespace, and the deletion of its
contents.
"""
