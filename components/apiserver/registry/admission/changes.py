"""Takes over an object that a webhook or a policy changed."""

from __future__ import annotations

from collections.abc import Callable

from kubewire.components.apiserver.registry.admission.plugin import Attributes
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.kubeapi.resources import KubeObject

#: Checks an object of the kind and fills in its defaults, in place; raises StatusError.
Decode = Callable[[Served, KubeObject], None]
#: Metadata that nobody can change here, because the registry sets it.
_KEPT = ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp")


def replace_object(
    attributes: Attributes, served: Served, changed: KubeObject, decode: Decode
) -> None:
    """Puts an object, as served, in the place of the request's; raises StatusError."""
    if attributes.body_kind is None:
        decode(served, changed)
        own = attributes.served
        changed = own.from_storage(changed) if own.custom else served.to_storage(changed)
        _keep_system_fields(attributes, changed)
    attributes.obj.clear()
    attributes.obj.update(changed)


def _keep_system_fields(attributes: Attributes, changed: KubeObject) -> None:
    metadata, own = changed["metadata"], attributes.obj["metadata"]
    for key in _KEPT:
        metadata.pop(key, None)
        if key in own:
            metadata[key] = own[key]
    if metadata.get("name"):
        attributes.name = metadata["name"]
    else:
        metadata["name"] = own["name"]
