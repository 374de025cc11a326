"""The aggregation layer: APIs that a Service of the cluster serves, behind this server's paths
(https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/).

availability says whether a Service can serve, documents turns its discovery into ours, identity
says who asks, and aggregator follows the APIServices and passes requests on.
"""
