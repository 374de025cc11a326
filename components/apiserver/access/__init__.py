"""Authorization: what a user may do (https://kubernetes.io/docs/reference/access-authn-authz/).

Every authorizer either allows a request or has no opinion. A request that none of them allows gets
403.
"""
