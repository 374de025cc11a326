"""Static pods: pods from manifests in a folder of the node.

The kubelet runs a static pod without the API server's help. To show it in the API, the kubelet
creates a mirror pod there, which it never runs itself; deleting a mirror pod does not stop the
static pod (https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.kernel import inotify
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.fields import only
from kubewire.components.kubeapi.resources import PODS
from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ObjectMeta, OwnerReference, Pod, PodSpec

log = logging.getLogger(__name__)

_SOURCE = "kubernetes.io/config.source"
_HASH = "kubernetes.io/config.hash"
_MIRROR = "kubernetes.io/config.mirror"
_SEEN = "kubernetes.io/config.seen"
_MIRROR_CHECK = 5.0


class ManifestError(ValueError):
    """The file is not a valid Pod manifest; it is logged and skipped."""


def read_manifest(text: str, where: str, node_name: str, seen: str) -> Pod:
    """Returns the pod of a manifest: its name is NAME-NODE, and its uid changes with the content.

    where: the file's path, part of the uid. Raises ManifestError.
    """
    from kubewire.components.base import yamlfile

    try:
        body: Any = yamlfile.load(text, where)
    except yamlfile.YamlFileError as error:
        raise ManifestError(str(error)) from error
    if not isinstance(body, dict) or body.get("kind") != "Pod" or body.get("apiVersion") != "v1":
        raise ManifestError(f"{where}: invalid pod: it must have apiVersion: v1 and kind: Pod")
    metadata = body.get("metadata") or {}
    spec = body.get("spec") or {}
    annotations = (metadata.get("annotations") if isinstance(metadata, dict) else None) or {}
    if not all(isinstance(part, dict) for part in (metadata, spec, annotations)):
        wrong = "metadata, metadata.annotations and spec must be mappings"
        raise ManifestError(f"{where}: invalid pod: {wrong}")
    if not metadata.get("name") or not spec.get("containers"):
        raise ManifestError(f"{where}: invalid pod: metadata.name and spec.containers are required")
    identity = f"{node_name}\0{where}\0{json.dumps(body, sort_keys=True)}"
    uid = hashlib.md5(identity.encode()).hexdigest()
    notes = {_SOURCE: "file", _HASH: uid, _SEEN: seen}
    own_metadata: ObjectMeta = body["metadata"]
    own_spec: PodSpec = body["spec"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **own_metadata,
            "name": f"{metadata['name']}-{node_name}",
            "namespace": metadata.get("namespace") or "default",
            "uid": uid,
            "annotations": {**annotations, **notes},
        },
        "spec": {
            "restartPolicy": "Always",
            **own_spec,
            "nodeName": node_name,
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
        },
    }


def mirror_of(pod: Pod, node_uid: str) -> Pod:
    """The mirror pod that stands for a static pod in the API."""
    metadata = only(("name", "namespace", "labels"), pod["metadata"])
    node_name = pod["spec"]["nodeName"]
    owner: OwnerReference = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": node_name,
        "uid": node_uid,
        "controller": True,
    }
    annotations = {**pod["metadata"]["annotations"], _MIRROR: pod["metadata"]["annotations"][_HASH]}
    return {
        **pod,
        "metadata": {**metadata, "annotations": annotations, "ownerReferences": [owner]},
    }


class StaticPods:
    """run() follows the folder and calls changed(old, new), in the manner of an informer."""

    def __init__(
        self,
        folder: Path,
        node_name: str,
        client: Client,
        changed: Callable[[Pod | None, Pod | None], None],
    ) -> None:
        self._folder = folder
        self._node_name = node_name
        self._client = client
        self._changed = changed
        self.node_uid = ""
        self.pods: dict[Path, Pod] = {}
        self._mirrors: dict[tuple[str, str], Pod] = {}

    def mirror_uid(self, pod: Pod) -> str | None:
        """The uid of the mirror pod; None while it does not exist."""
        mirror = self._mirrors.get((pods.namespace(pod), pods.name(pod)))
        return pods.uid(mirror) if mirror else None

    def saw_mirror(self, old: Pod | None, new: Pod | None) -> Pod | None:
        """Takes a mirror pod from the informer; returns its static pod, if that still exists."""
        mirror = new or old
        assert mirror is not None
        key = (pods.namespace(mirror), pods.name(mirror))
        if new is not None:
            self._mirrors[key] = new
        else:
            self._mirrors.pop(key, None)
        for pod in self.pods.values():
            if (pods.namespace(pod), pods.name(pod)) == key:
                return pod
        return None

    async def run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with inotify.Watch(self._folder) as watch:
            while True:
                self._read()
                await self._keep_mirrors()
                try:
                    async with asyncio.timeout(_MIRROR_CHECK):
                        await watch.changed()
                except TimeoutError:
                    pass

    def scan(self) -> dict[Path, Pod]:
        """Reads all manifests: file -> pod. Invalid manifests are logged."""
        from kubewire.components.base import yamlfile

        manifests: dict[Path, Pod] = {}
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                try:
                    seen = datetime.now(UTC).isoformat()
                    text = yamlfile.read_text(path)
                    manifests[path] = read_manifest(text, str(path), self._node_name, seen)
                except (ManifestError, yamlfile.YamlFileError, OSError) as error:
                    log.error("static pod: %s", error)
        return manifests

    def _read(self) -> None:
        manifests = self.scan()
        for path, pod in list(self.pods.items()):
            if path not in manifests or pods.uid(manifests[path]) != pods.uid(pod):
                del self.pods[path]
                self._changed(pod, None)
        for path, pod in manifests.items():
            if path not in self.pods:
                self.pods[path] = pod
                self._changed(None, pod)

    async def _keep_mirrors(self) -> None:
        """Creates missing mirror pods, and deletes those without or with a changed static pod."""
        wanted = {(pods.namespace(pod), pods.name(pod)): pod for pod in self.pods.values()}
        try:
            for key, mirror in list(self._mirrors.items()):
                pod = wanted.get(key)
                if pod is None or mirror["metadata"]["annotations"].get(_MIRROR) != pods.uid(pod):
                    await self._delete(mirror)
                    self._mirrors.pop(key, None)
            for key, pod in wanted.items():
                if key not in self._mirrors:
                    await self._create(pod)
        except ApiError as error:
            log.warning("mirror pods: %s", error)

    async def _create(self, pod: Pod) -> None:
        try:
            mirror = mirror_of(pod, self.node_uid)
            await self._client.create(PODS, mirror)
        except ApiError as error:
            if error.status != 409:
                raise

    async def _delete(self, mirror: Pod) -> None:
        try:
            await self._client.delete(
                PODS,
                pods.name(mirror),
                pods.namespace(mirror),
                grace_period_seconds=0,
                uid=pods.uid(mirror),
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise
