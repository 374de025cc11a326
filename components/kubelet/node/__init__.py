"""The Node object: what this kubelet says about its node, and its Lease."""
