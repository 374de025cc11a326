"""Makes the claims of generic ephemeral volumes
(https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Create, Emit, Report
from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.meta import (
    Key,
    controller_reference,
    controller_uid,
    is_deleting,
)
from kubewire.components.controllers.pods import is_finished
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS, PODS
from kubewire.components.kubeapi.volumes import claim_name

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import PersistentVolumeClaim, Pod


def plan(pod: Pod, claims: Mapping[str, PersistentVolumeClaim]) -> tuple[Action, ...]:
    """claims are those of the pod's namespace, by name."""
    if is_deleting(pod) or is_finished(pod):
        return ()
    actions: list[Action] = []
    for volume in pod["spec"].get("volumes") or []:
        name = claim_name(pod, volume)
        if "ephemeral" not in volume or name is None:
            continue
        held = claims.get(name)
        if held is None:
            actions.append(_create(pod, name, volume["ephemeral"]["volumeClaimTemplate"]))
        elif controller_uid(held) != pod["metadata"]["uid"]:
            namespace = pod["metadata"]["namespace"]
            text = f'PVC "{namespace}/{name}" was not created for pod "{namespace}/'
            text += f'{pod["metadata"]["name"]}" (pod is not owner)'
            actions.append(Emit(pod, "Warning", "ConflictingEphemeralVolumeClaim", text))
    return tuple(actions)


def _create(pod: Pod, name: str, template: Mapping[str, object]) -> Create:
    given = template.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": pod["metadata"]["namespace"],
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [controller_reference(pod)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }
    report = Report(
        pod,
        failure_reason="EphemeralVolumeClaimFailed",
        failure_message="create PVC {name}: {error}",
    )
    return Create(PERSISTENTVOLUMECLAIMS, claim, report)


class EphemeralVolumeController(KeyedController):
    component = "ephemeral_volume"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.follow(PODS, self._on_pod)
        self.claims = self.follow(PERSISTENTVOLUMECLAIMS, self.enqueue_owner("Pod"))

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new and any("ephemeral" in item for item in new["spec"].get("volumes") or []):
            self.enqueue(old, new)

    async def sync(self, key: Key) -> None:
        pod = self.pods.store.get(key)
        if pod is None:
            return
        names = (claim_name(pod, volume) for volume in pod["spec"].get("volumes") or [])
        held = {name: self.claims.store.get((key[0], name)) for name in names if name}
        await self.apply(key, plan(pod, {name: item for name, item in held.items() if item}))
