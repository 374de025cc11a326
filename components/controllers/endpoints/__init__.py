"""Endpoints, the older form of EndpointSlices (https://kubernetes.io/docs/concepts/services-networking/service/#endpoints)."""
