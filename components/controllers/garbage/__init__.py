"""Garbage collection of objects by their owner references and of pods without a node
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/).
"""
