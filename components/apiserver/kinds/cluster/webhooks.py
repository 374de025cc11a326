"""MutatingWebhookConfiguration and ValidatingWebhookConfiguration
(admissionregistration.k8s.io/v1).

They are stored, and no webhook is called.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.spec import Column, KindSpec
from kubewire.components.kubeapi.resources import KubeObject, Resource

GROUP = "admissionregistration.k8s.io"
MUTATING: Resource[KubeObject] = Resource(
    GROUP,
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING: Resource[KubeObject] = Resource(
    GROUP,
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)

COLUMNS = (
    cells.NAME,
    Column("Webhooks", "integer", "", "Number of webhooks in this configuration"),
    cells.AGE,
)


def default(obj: KubeObject) -> None:
    for webhook in obj.get("webhooks") or ():
        webhook.setdefault("failurePolicy", "Fail")
        webhook.setdefault("matchPolicy", "Equivalent")
        webhook.setdefault("namespaceSelector", {})
        webhook.setdefault("objectSelector", {})
        webhook.setdefault("timeoutSeconds", 10)
        if obj.get("kind") == MUTATING.kind:
            webhook.setdefault("reinvocationPolicy", "Never")
        for rule in webhook.get("rules") or ():
            rule.setdefault("scope", "*")
        service = cells.at(webhook, "clientConfig", "service")
        if service is not None:
            service.setdefault("port", 443)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), len(obj.get("webhooks") or ()), cells.age(obj, now)]


MUTATING_KIND = KindSpec(
    resource=MUTATING,
    singular="mutatingwebhookconfiguration",
    categories=("api-extensions",),
    default=default,
    columns=COLUMNS,
    row=row,
    unconditional_update=False,
)
VALIDATING_KIND = KindSpec(
    resource=VALIDATING,
    singular="validatingwebhookconfiguration",
    categories=("api-extensions",),
    default=default,
    columns=COLUMNS,
    row=row,
    unconditional_update=False,
)
