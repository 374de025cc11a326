"""The provisioner of the class `standard`: a directory of the node (rancher.io/local-path, as in kind).

A volume is a directory below /var/local-path-provisioner of the node on which the claim's first pod
runs, so the class waits for the first consumer: the scheduler has to choose the node before there
can be a directory. A helper pod on that node makes the directory, writable for every user, and
another one removes it, because only programs on a node can touch its disk
(https://github.com/rancher/local-path-provisioner).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Change, Create, Delete, Emit
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import Key, annotations_of, is_deleting
from kubewire.components.controllers.pods import phase
from kubewire.components.controllers.storage.binding import claim_reference
from kubewire.components.kubeapi import volumes as matching
from kubewire.components.kubeapi.resources import (
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    STORAGECLASSES,
)

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Node,
        PersistentVolume,
        PersistentVolumeClaim,
        Pod,
        StorageClass,
    )

PROVISIONER = "rancher.io/local-path"
ROOT = "/var/local-path-provisioner"
NAMESPACE = "kube-system"
_IMAGE = "docker.io/library/busybox:1.37"
_LABEL = "app.kubernetes.io/managed-by"
_MODES = ("ReadWriteOnce", "ReadWriteOncePod")
_HELPER = re.compile(r"helper-pod-(?:create|delete)-(?P<volume>.+)")


@dataclass(frozen=True)
class Cluster:
    """The nodes and the helper pods by name."""

    nodes: Mapping[str, Node]
    helpers: Mapping[str, Pod]


def volume_name(claim: PersistentVolumeClaim) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def plan_claim(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass,
    cluster: Cluster,
) -> tuple[Action, ...]:
    """The next step towards the claim's volume, which does not exist yet."""
    if why := _refusal(claim):
        return (_failed(claim, storage_class, why),)
    helper = cluster.helpers.get(f"helper-pod-create-{volume_name(claim)}")
    if helper is None:
        node = _node(claim, storage_class, cluster.nodes)
        if node is None:
            return ()
        metadata = claim["metadata"]
        text = "External provisioner is provisioning volume for claim "
        text += f'"{metadata["namespace"]}/{metadata["name"]}"'
        script = f'mkdir -m 0777 -p "{_path(claim)}"'
        pod = _helper("create", volume_name(claim), node, script)
        return (Emit(claim, "Normal", "Provisioning", text), Create(PODS, pod))
    if phase(helper) == "Succeeded":
        volume = _volume(claim, storage_class, helper["spec"]["nodeName"])
        text = f"Successfully provisioned volume {volume['metadata']['name']}"
        return (
            Create(PERSISTENTVOLUMES, volume),
            Emit(claim, "Normal", "ProvisioningSucceeded", text),
            _end(helper),
        )
    if phase(helper) != "Failed":
        return ()
    why = f"the directory could not be made on node {helper['spec']['nodeName']}"
    # Without the annotation the scheduler chooses again, maybe another node.
    again: dict[str, Any] = {"metadata": {"annotations": {matching.SELECTED_NODE: None}}}
    place = (claim["metadata"]["namespace"], claim["metadata"]["name"])
    return (
        _failed(claim, storage_class, why),
        _end(helper),
        Change(PERSISTENTVOLUMECLAIMS, *place, again),
    )


def _refusal(claim: PersistentVolumeClaim) -> str:
    if claim["spec"].get("selector"):
        return "claim.Spec.Selector is not supported"
    if claim["spec"].get("volumeMode") == "Block":
        return "block volumes are not supported"
    if any(mode not in _MODES for mode in claim["spec"].get("accessModes") or ()):
        return "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"
    return ""


def _failed(claim: PersistentVolumeClaim, storage_class: StorageClass, why: str) -> Emit:
    name = storage_class["metadata"]["name"]
    text = f'failed to provision volume with StorageClass "{name}": {why}'
    return Emit(claim, "Warning", "ProvisioningFailed", text)


def _node(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass,
    nodes: Mapping[str, Node],
) -> str | None:
    """The node that the scheduler chose; of a class that does not wait, the first that takes
    pods."""
    chosen = annotations_of(claim).get(matching.SELECTED_NODE)
    if chosen:
        return chosen if chosen in nodes else None
    if storage_class.get("volumeBindingMode") == matching.WAIT_FOR_FIRST_CONSUMER:
        return None
    return min((name for name, node in nodes.items() if not _is_tainted(node)), default=None)


def _is_tainted(node: Node) -> bool:
    spec = node.get("spec") or {}
    taints = spec.get("taints") or ()
    return bool(spec.get("unschedulable")) or any(
        taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints
    )


def _path(claim: PersistentVolumeClaim) -> str:
    metadata = claim["metadata"]
    return f"{ROOT}/{volume_name(claim)}_{metadata['namespace']}_{metadata['name']}"


def _helper(action: str, volume: str, node: str, script: str) -> dict[str, Any]:
    """A pod of the node's network, so that it needs no address and runs where no pod may."""
    mount = {"name": "data", "mountPath": ROOT}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"helper-pod-{action}-{volume}",
            "namespace": NAMESPACE,
            "labels": {_LABEL: "local-path-provisioner"},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "helper-pod",
                    "image": _IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", script],
                    "volumeMounts": [mount],
                }
            ],
            "volumes": [{"name": "data", "hostPath": {"path": ROOT, "type": "DirectoryOrCreate"}}],
        },
    }


def _end(helper: Pod) -> Delete:
    metadata = helper["metadata"]
    return Delete(
        PODS, metadata["namespace"], metadata["name"], metadata["uid"], grace_period_seconds=0
    )


def _volume(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass,
    node: str,
) -> dict[str, Any]:
    requests = claim["spec"]["resources"]["requests"]
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume_name(claim),
            "annotations": {
                matching.PROVISIONED_BY: PROVISIONER,
                "local.path.provisioner/selected-node": node,
            },
        },
        "spec": {
            "accessModes": claim["spec"].get("accessModes"),
            "capacity": {"storage": requests["storage"]},
            "claimRef": claim_reference(claim),
            "hostPath": {"path": _path(claim), "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "volumeMode": "Filesystem",
        },
    }


def plan_volume(volume: PersistentVolume, cluster: Cluster) -> tuple[Action, ...]:
    """The next step in the deletion of a volume of ours whose claim is gone."""
    name = volume["metadata"]["name"]
    path = (volume["spec"].get("hostPath") or {}).get("path", "")
    node = annotations_of(volume).get("local.path.provisioner/selected-node", "")
    uid = volume["metadata"]["uid"]
    gone = Delete(PERSISTENTVOLUMES, "", name, uid)
    if node not in cluster.nodes or not path.startswith(f"{ROOT}/"):
        # With its node the directory is gone, and nothing else is ours to remove.
        return (gone,)
    helper = cluster.helpers.get(f"helper-pod-delete-{name}")
    if helper is None:
        return (Create(PODS, _helper("delete", name, node, f'rm -rf "{path}"')),)
    if phase(helper) == "Succeeded":
        return (gone, _end(helper))
    if phase(helper) == "Failed":
        text = f"the directory {path} could not be removed on node {node}"
        failed = {"metadata": {"uid": uid}, "status": {"phase": "Failed", "message": text}}
        return (
            Change(PERSISTENTVOLUMES, "", name, failed, "status"),
            Emit(volume, "Warning", "VolumeFailedDelete", text),
            _end(helper),
        )
    return ()


class LocalPathProvisioner(KeyedController):
    component = PROVISIONER
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims = self.follow(PERSISTENTVOLUMECLAIMS, self.enqueue)
        self.volumes = self.follow(PERSISTENTVOLUMES, self.enqueue)
        self.classes = self.follow(STORAGECLASSES)
        self.nodes = self.follow(NODES)
        self.pods = self.follow(PODS, self._on_pod)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        metadata = (new or old or {})["metadata"]
        helper = _HELPER.fullmatch(metadata["name"])
        if metadata["namespace"] != NAMESPACE or helper is None:
            return
        self.queue.add(("", helper["volume"]))
        for key, claim in self.claims.store.items():
            if volume_name(claim) == helper["volume"]:
                self.queue.add(key)

    async def sync(self, key: Key) -> None:
        if key[0]:
            await self._sync_claim(key)
        elif (volume := self.volumes.store.get(key)) is not None and _is_ours(volume):
            await self.apply(key, plan_volume(volume, self._cluster(volume["metadata"]["name"])))

    async def _sync_claim(self, key: Key) -> None:
        claim = self.claims.store.get(key)
        if claim is None or is_deleting(claim) or claim["spec"].get("volumeName"):
            return
        storage_class = self.classes.store.get(("", matching.class_of(claim)))
        asked = annotations_of(claim).get(matching.PROVISIONER) == PROVISIONER
        if storage_class is None or not asked or ("", volume_name(claim)) in self.volumes.store:
            return
        cluster = self._cluster(volume_name(claim))
        await self.apply(key, plan_claim(claim, storage_class, cluster))

    def _cluster(self, volume: str) -> Cluster:
        names = [f"helper-pod-{action}-{volume}" for action in ("create", "delete")]
        found = {name: self.pods.store.get((NAMESPACE, name)) for name in names}
        return Cluster(
            {name: node for (_, name), node in self.nodes.store.items()},
            {name: pod for name, pod in found.items() if pod is not None},
        )


def _is_ours(volume: PersistentVolume) -> bool:
    """Whether the volume is one that this provisioner has to delete now."""
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    released = (volume.get("status") or {}).get("phase") == "Released"
    made = annotations_of(volume).get(matching.PROVISIONED_BY) == PROVISIONER
    return released and made and policy == "Delete" and not is_deleting(volume)
