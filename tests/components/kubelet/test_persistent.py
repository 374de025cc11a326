"""What a claim in a pod is on the node."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS
from kubewire.components.kubelet.pod.files import PodFiles
from kubewire.components.kubelet.volumes import local
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.local import LocalVolume
from kubewire.components.kubelet.volumes.payload import MountProblem
from kubewire.components.kubelet.volumes.persistent import PersistentVolumes, read_only_claims
from kubewire.components.kubelet.volumes.setup import tear_down
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


def using(uid: str, group: int | None, policy: str = "Always") -> Any:
    context = {} if group is None else {"fsGroup": group, "fsGroupChangePolicy": policy}
    return {"metadata": {"name": uid, "uid": uid}, "spec": {"containers": [], "securityContext": context}}


class Node:
    """A node with one local volume, which has a file of group 0."""

    def __init__(self, tmp_path: Path) -> None:
        self.directories = Directories(tmp_path / "kubelet")
        self.directories.pod("").mkdir(parents=True)
        self.path = tmp_path / "disk"
        self.path.mkdir(mode=0o700)
        (self.path / "file").write_text("")
        (self.path / "file").chmod(0o600)
        self.warnings: list[tuple[str, str]] = []

    def set_up(self, user: Any, *, read_only: bool = False) -> None:
        volume = LocalVolume("pv", self.path, read_only)
        local.set_up(user, volume, self.directories, lambda *warning: self.warnings.append(warning))

    @property
    def group(self) -> int:
        return (self.path / "file").stat().st_gid


@pytest.mark.parametrize(
    ("user", "read_only", "group", "mode"),
    [
        (using("a", 5), False, 5, 0o660),
        (using("a", None), False, 0, 0o600),
        (using("a", 5), True, 0, 0o600),
        (using("a", 0, "OnRootMismatch"), False, 0, 0o660),
    ],
    ids=["the group of the pod", "no group", "a claim that is read-only", "a root with other permissions"],
)
def test_a_local_volume_belongs_to_the_fs_group(
    tmp_path: Path, user: Any, read_only: bool, group: int, mode: int
) -> None:
    node = Node(tmp_path)
    node.set_up(user, read_only=read_only)
    assert (node.group, (node.path / "file").stat().st_mode & 0o777) == (group, mode)


def test_on_root_mismatch_leaves_a_local_volume_alone_whose_root_is_right(tmp_path: Path) -> None:
    node = Node(tmp_path)
    os.chown(node.path, -1, 5)
    node.path.chmod(0o2770)
    node.set_up(using("a", 5, "OnRootMismatch"))
    assert node.group == 0


def test_a_local_volume_gets_its_group_once_for_a_pod_and_keeps_it_while_another_uses_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.set_up(using("a", 5))
    os.chown(node.path / "file", -1, 0)
    node.set_up(using("a", 5))
    assert node.group == 0, "what the pod does with its files is its own matter"
    node.set_up(using("b", 6))
    text = "The requested fsGroup is 6, but the volume pv has GID 5. The volume may not be shareable."
    assert (node.group, node.warnings) == (0, [("AlreadyMountedVolume", text)])
    for uid in "ab":
        tear_down(uid, node.directories)
    assert (node.path / "file").exists(), "the end of a pod leaves the files of its volume"
    node.set_up(using("c", 6))
    assert (node.group, len(node.warnings)) == (6, 1)


class Nobody:
    """No objects, no tokens, nobody to tell: a node that has nothing but its directories and the API."""

    def __init__(self, client: Any, directories: Directories) -> None:
        self.client = client
        self.directories = directories
        self.objects = self.recorder = self.tokens = self
        self.facts = None

    async def use(self, *_: Any) -> None:
        pass


def test_the_kubelet_gives_a_claims_local_volume_to_the_group_of_the_pod(tmp_path: Path) -> None:
    node = Node(tmp_path)
    bound = volume(claim=reference())
    del bound["spec"]["hostPath"]
    bound["spec"]["local"] = {"path": str(node.path)}
    claims = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    user: Any = pod("web", spec={"volumes": claims, "securityContext": {"fsGroup": 5}})
    services: Any = Nobody(Api(BOUND, bound), node.directories)
    asyncio.run(PodFiles(services, user["metadata"]["uid"]).prepare(user, ()))
    assert node.group == 5


def test_a_volume_of_a_directory_of_the_node_keeps_its_group() -> None:
    """Upstream's hostPath plugin knows no fsGroup, in a PersistentVolume no more than in a pod."""

    def found(bound: Any) -> Any:
        volumes: Any = PersistentVolumes(Api(BOUND, bound))  # type: ignore[arg-type]
        asyncio.run(volumes.find(USING))
        return volumes.local(USING)

    of_a_directory = volume(claim=reference())
    of_a_disk = volume(claim=reference())
    del of_a_disk["spec"]["hostPath"]
    of_a_disk["spec"]["local"] = {"path": "/"}
    assert found(of_a_directory) == []
    assert found(of_a_disk) == [LocalVolume("pv", Path("/"), read_only=True)]
