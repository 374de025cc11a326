"""HorizontalPodAutoscaler (https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/)."""
