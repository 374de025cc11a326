"""Service resources: Services, endpoints, Ingresses, NetworkPolicies, and the addresses of Services."""
