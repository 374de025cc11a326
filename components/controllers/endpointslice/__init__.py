"""EndpointSlices (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/)."""
