"""Admission policies: CEL expressions in objects of the API that check or change requests
(https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/).

A policy says what is checked, and a binding where, with which parameters and with what
consequence. definitions.py reads and compiles both, matching.py decides which requests they
concern, and validating.py and mutating.py are the plugins of the admission chain.
"""
