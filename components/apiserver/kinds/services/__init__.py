"""Services, their endpoints and addresses, Ingresses and NetworkPolicies."""
