"""The Node object and the Lease, by which this kubelet reports about its node."""
