"""PodSecurity: the Pod Security Standards of a namespace's labels
(staging/src/k8s.io/pod-security-admission,
https://kubernetes.io/docs/concepts/security/pod-security-standards/).
"""
