"""Finds what a claim in a pod stands for: the directory of the volume to which it is bound.

The claim and its volume are read once, by name, because the node authorizer allows a kubelet no
more (https://kubernetes.io/docs/reference/access-authn-authz/node/). A bound claim keeps its
volume. The texts of the errors are upstream's; they become FailedMount events.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from kubewire.components.kubeapi.volumes import claim_name, claim_names
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.volumes.local import LocalVolume
from kubewire.components.kubelet.volumes.payload import MountProblem

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        HostPathVolumeSource,
        PersistentVolume,
        PersistentVolumeClaim,
        Pod,
        Volume,
    )


class PersistentVolumes:
    """The volumes of one pod's claims."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._found: dict[str, PersistentVolume] = {}

    async def find(self, pod: Pod) -> None:
        """Reads what is not known yet. Raises MountProblem."""
        for name in claim_names(pod):
            if name not in self._found:
                self._found[name] = await self._look_up(pod, name)

    def resolve(self, pod: Pod) -> Pod:
        """The pod with the directory of the volume in place of each claim. Raises MountProblem."""
        volumes: list[Volume] = []
        for volume in pod["spec"].get("volumes") or []:
            held = self._found.get(claim_name(pod, volume) or "")
            source: Volume = {"name": volume["name"]}
            if held is not None:
                source["hostPath"] = host_path(held)
            volumes.append(volume if held is None else source)
        return {**pod, "spec": {**pod["spec"], "volumes": volumes}}

    def local(self, pod: Pod) -> list[LocalVolume]:
        """The local volumes that stand behind the pod's claims."""
        read_only = read_only_claims(pod)
        found = []
        for volume in pod["spec"].get("volumes") or []:
            held = self._found.get(claim_name(pod, volume) or "")
            if held is not None and (source := held["spec"].get("local")):
                is_read_only = volume["name"] in read_only
                path = Path(source["path"])
                found.append(LocalVolume(held["metadata"]["name"], path, is_read_only))
        return found

    async def _look_up(self, pod: Pod, name: str) -> PersistentVolume:
        namespace = pods.namespace(pod)
        where = f"error processing PVC {namespace}/{name}"
        try:
            claim = await self._client.get(PERSISTENTVOLUMECLAIMS, name, namespace)
            check_claim(pod, claim)
            volume = await self._client.get(PERSISTENTVOLUMES, claim["spec"]["volumeName"])
        except ApiError as error:
            raise MountProblem(f"{where}: {error.message}") from error
        reference = volume["spec"].get("claimRef") or {}
        if reference.get("uid") != claim["metadata"]["uid"]:
            held = volume["metadata"]["name"]
            raise MountProblem(f"{where}: PVC {name} is not bound to PV {held}")
        return volume


def check_claim(pod: Pod, claim: PersistentVolumeClaim) -> None:
    """Raises MountProblem if the pod cannot use the claim."""
    metadata = claim["metadata"]
    where = f"error processing PVC {metadata['namespace']}/{metadata['name']}"
    if metadata.get("deletionTimestamp"):
        raise MountProblem(f"{where}: PVC is being deleted")
    owners = {item["uid"] for item in metadata.get("ownerReferences") or []}
    if _is_ephemeral(pod, metadata["name"]) and pods.uid(pod) not in owners:
        raise MountProblem(f"{where}: PVC was not created for pod {pods.full_name(pod)}")
    phase = (claim.get("status") or {}).get("phase")
    if phase != "Bound" or not claim["spec"].get("volumeName"):
        raise MountProblem(f"{where}: PVC is not bound")


def _is_ephemeral(pod: Pod, name: str) -> bool:
    volumes = pod["spec"].get("volumes") or []
    return any("ephemeral" in item and claim_name(pod, item) == name for item in volumes)


def host_path(volume: PersistentVolume) -> HostPathVolumeSource:
    """The directory of a volume. Raises MountProblem if it is of no kind that a node here has."""
    spec = volume["spec"]
    name = volume["metadata"]["name"]
    if spec.get("volumeMode") == "Block":
        raise MountProblem(f'volume "{name}": block volumes are not supported')
    if source := spec.get("hostPath"):
        return source
    if local := spec.get("local"):
        if not Path(local["path"]).exists():
            text = f'MountVolume.NewMounter initialization failed for volume "{name}"'
            raise MountProblem(f'{text} : path "{local["path"]}" does not exist')
        return {"path": local["path"]}
    raise MountProblem(f'no volume plugin matched: volume "{name}" is of no supported kind')


def read_only_claims(pod: Pod) -> set[str]:
    """The volumes that the pod mounts read-only as a whole."""
    volumes = pod["spec"].get("volumes") or []
    return {
        volume["name"]
        for volume in volumes
        if (volume.get("persistentVolumeClaim") or {}).get("readOnly")
    }
