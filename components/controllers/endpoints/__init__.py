"""Endpoints, the predecessor of EndpointSlices
(https://kubernetes.io/docs/concepts/services-networking/service/#endpoints).
"""
