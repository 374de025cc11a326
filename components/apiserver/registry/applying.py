"""PATCH with application/apply-patch+yaml: server-side apply as a write of the registry.

fieldownership.py decides which manager owns which field and merges configurations. It knows
nothing of requests.
"""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.fieldownership import (
    ListKeysOf,
    applied,
    first_applied,
    list_keys_for,
)
from kubewire.components.apiserver.registry.fieldsets import owned_fields
from kubewire.components.apiserver.registry.registry import Registry, Strategy
from kubewire.components.apiserver.registry.requests import Result, WriteOptions
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.resources import KubeObject


def apply_patch(
    registry: Registry,
    served: Served,
    namespace: str,
    name: str,
    patch: Any,
    options: WriteOptions,
    subresource: str,
    list_keys_of: ListKeysOf,
) -> Result:
    """Creates the object, or merges the manager's configuration into it. Raises 400, 409 and
    422.
    """
    config = _checked(registry, served, patch, name, options)
    key = list_keys_for(served, list_keys_of)
    # Applying the subresource status changes only the status, and applying the object everything
    # else.
    always = ("kind", "apiVersion", "metadata")
    config = {
        field: value
        for field, value in config.items()
        if field in always or (field == "status") is (subresource == "status")
    }
    fields = owned_fields(config, key)
    identity = (options.field_manager, "Apply", subresource)
    stored = registry.store.get(Key(served.storage, namespace if served.namespaced else "", name))
    if stored is None:
        if subresource:
            raise status.not_found(served.group, served.plural, name)
        config["metadata"]["name"] = name
        first_applied(config, fields, identity, served.api_version)
        return registry.create(served, namespace, config, options)

    def transform(live: KubeObject) -> KubeObject:
        return applied(live, config, fields, identity, served.api_version, key, options.force)

    strategies: dict[str, Strategy] = {"status": "status", "approval": "approval"}
    strategy = strategies.get(subresource, "main")
    return registry.update(
        served, namespace, name, transform, options, strategy, track=False, subresource=subresource
    )


def _checked(
    registry: Registry,
    served: Served,
    patch: Any,
    name: str,
    options: WriteOptions,
) -> KubeObject:
    if not options.field_manager:
        error = FieldError("Required", "fieldManager", "", "is required for apply patch")
        raise status.invalid("meta.k8s.io", "PatchOptions", "", [error])
    if not isinstance(patch, dict):
        raise status.bad_request("error decoding YAML: the applied configuration is not an object")
    config: KubeObject = patch
    registry.decoding.check_types(served, config)
    metadata = config["metadata"]
    if metadata.get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    if (metadata.get("name") or name) != name:
        text = f"the name of the object ({metadata['name']}) does not match the name"
        raise status.bad_request(f"{text} on the URL ({name})")
    return config
