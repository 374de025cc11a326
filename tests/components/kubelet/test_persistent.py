"""What a claim in a pod is on the node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS
from kubewire.components.kubelet.volumes.payload import MountProblem
from kubewire.components.kubelet.volumes.persistent import PersistentVolumes, read_only_claims
from tests.components.controllers.objects import pod
from tests.components.controllers.storage import claim, reference, volume

USING = pod("web", spec={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}]})
BOUND = claim(volume="pv", phase="Bound")


class Api:
    """Answers with the claim and the volume, or 404."""

    def __init__(self, held: Any = None, bound: Any = None) -> None:
        self.held = held
        self.bound = bound
        self.reads = 0

    async def get(self, resource: Any, name: str, namespace: str | None = None) -> Any:
        self.reads += 1
        found = self.held if resource is PERSISTENTVOLUMECLAIMS else self.bound
        if found is None:
            raise ApiError(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found


def source(api: Any) -> Any:
    volumes = PersistentVolumes(api)
    asyncio.run(volumes.find(USING))
    asyncio.run(volumes.find(USING))
    return volumes.resolve(USING)["spec"]["volumes"]


def test_the_pod_gets_the_directory_of_the_volume_and_asks_once() -> None:
    api = Api(BOUND, volume(claim=reference()))
    assert source(api) == [{"name": "v", "hostPath": {"path": "/srv/pv"}}]
    assert api.reads == 2
    assert read_only_claims(USING) == {"v"}


def test_a_local_volume_has_to_exist(tmp_path: Path) -> None:
    local = volume(claim=reference())
    del local["spec"]["hostPath"]
    local["spec"]["local"] = {"path": str(tmp_path)}
    assert source(Api(BOUND, local)) == [{"name": "v", "hostPath": {"path": str(tmp_path)}}]
    local["spec"]["local"] = {"path": "/absent"}
    with pytest.raises(MountProblem, match='path "/absent" does not exist'):
        source(Api(BOUND, local))


@pytest.mark.parametrize(
    ("held", "bound", "text"),
    [
        (None, None, 'error processing PVC default/data: persistentvolumeclaims "data" not found'),
        (claim(), None, "error processing PVC default/data: PVC is not bound"),
        (claim(deleting=True), None, "error processing PVC default/data: PVC is being deleted"),
        (BOUND, None, 'error processing PVC default/data: persistentvolumes "pv" not found'),
        (BOUND, volume(claim=reference("other")), "error processing PVC default/data: PVC data is not bound to PV pv"),
    ],
    ids=["no claim", "not bound", "going", "no volume", "a volume of another claim"],
)
def test_why_a_pod_waits(held: Any, bound: Any, text: str) -> None:
    with pytest.raises(MountProblem, match=text):
        source(Api(held, bound))
