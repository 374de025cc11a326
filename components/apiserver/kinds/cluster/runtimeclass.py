"""RuntimeClass (node.k8s.io/v1): pkg/apis/node/validation."""

from __future__ import annotations

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, immutable, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import KubeObject, Resource

RUNTIMECLASSES: Resource[KubeObject] = Resource(
    "node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False
)


def validate_create(obj: KubeObject) -> list[FieldError]:
    handler = obj.get("handler") or ""
    if not handler:
        return [required("handler")]
    return by_rule(names.dns1123_label, "handler", handler)


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return immutable("handler", new.get("handler"), old.get("handler"))


KIND = KindSpec(
    resource=RUNTIMECLASSES,
    singular="runtimeclass",
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("Handler", "string", "", "The configuration of the runtime that runs the pods."),
        cells.AGE,
    ),
    row=lambda obj, now: [cells.name(obj), obj.get("handler", ""), cells.age(obj, now)],
)
