"""What the API server adds to volumes and claims, and which claims may grow."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES
from tests.components.apiserver.conftest import Run


def claim(name: str, size: str = "1Gi", **spec: Any) -> Any:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": body}


def a_class(name: str, default: bool = False, **fields: Any) -> Any:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": notes}, "provisioner": "example.com/disk", **fields}


SPECS: dict[str, Any] = {"none": {}, "other": {"storageClassName": "x"}, "empty": {"storageClassName": ""}}


def test_a_claim_gets_the_default_class_and_both_sides_are_protected(run: Run) -> None:
    async def act(client: Client) -> Any:
        await client.create(STORAGECLASSES, a_class("standard", default=True))
        made = [await client.create(PERSISTENTVOLUMECLAIMS, claim(name, **spec)) for name, spec in SPECS.items()]
        spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/srv"}}
        volume: Any = {"metadata": {"name": "pv"}, "spec": spec}
        return [*made, await client.create(PERSISTENTVOLUMES, volume)]

    *claims, volume = run(act)
    assert [item["spec"]["storageClassName"] for item in claims] == ["standard", "x", ""]
    assert claims[0]["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert volume["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


def test_only_a_class_that_allows_it_lets_a_bound_claim_grow(run: Run) -> None:
    async def act(client: Client, name: str, **fields: Any) -> Any:
        await client.create(STORAGECLASSES, a_class(name, **fields))
        await client.create(PERSISTENTVOLUMECLAIMS, claim(name, storageClassName=name, volumeName="pv"))
        bound = {"status": {"phase": "Bound"}}
        await client.patch(PERSISTENTVOLUMECLAIMS, name, bound, "default", subresource="status")
        larger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        return await client.patch(PERSISTENTVOLUMECLAIMS, name, larger, "default")

    grown = run(lambda client: act(client, "growing", allowVolumeExpansion=True))
    assert grown["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    with pytest.raises(ApiError, match="the storageclass that provisions the pvc must support resize"):
        run(lambda client: act(client, "fixed"))
