"""Admission webhooks: programs outside the API server that change or refuse its writes.

MutatingWebhookConfigurations and ValidatingWebhookConfigurations say which requests they see
(https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/).
rules.py decides that, reviews.py writes the question and reads the answer, client.py carries them,
and dispatching.py is the plugin of the admission chain.
"""
