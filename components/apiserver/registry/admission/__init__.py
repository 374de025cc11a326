"""Built-in admission: changes to and checks of an object that involve other objects.

A kind's own defaults and validation see only the object itself. Admission sees the rest of the
cluster, and may change or refuse the write
(https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/). It has two
phases: first every plugin may change the object (admit), then the kind validates it, then every
plugin may check it as it will be stored (validate).

Each plugin is a module of its own. chain.py lists them in upstream's order.
"""
