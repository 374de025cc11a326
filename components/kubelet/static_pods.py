"""Static pods: manifests in a folder of the node, run without the API server, shown there as mirror pods
(https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubewire.components.kernel import inotify
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import PODS, KubeObject
from kubewire.components.kubelet import pods

log = logging.getLogger(__name__)

_SOURCE, _HASH = "kubernetes.io/config.source", "kubernetes.io/config.hash"
_MIRROR, _SEEN = "kubernetes.io/config.mirror", "kubernetes.io/config.seen"
_MIRROR_CHECK = 5.0


class ManifestError(ValueError):
    """A file that is no Pod; it is logged and passed over."""


def read_manifest(text: str, where: str, node_name: str, seen: str) -> KubeObject:
    """The pod a manifest stands for: NAME-NODE, with a uid that changes with the file. Raises ManifestError."""
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
        raise ManifestError(f"{where}: invalid pod: metadata, metadata.annotations and spec must be mappings")
    if not metadata.get("name") or not spec.get("containers"):
        raise ManifestError(f"{where}: invalid pod: metadata.name and spec.containers are required")
    uid = hashlib.md5(f"{node_name}\0{where}\0{json.dumps(body, sort_keys=True)}".encode()).hexdigest()
    notes = {_SOURCE: "file", _HASH: uid, _SEEN: seen}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata,
            "name": f"{metadata['name']}-{node_name}",
            "namespace": metadata.get("namespace") or "default",
            "uid": uid,
            "annotations": {**annotations, **notes},
        },
        "spec": {
            "restartPolicy": "Always",
            **spec,
            "nodeName": node_name,
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
        },
    }


def mirror_of(pod: KubeObject, node_uid: str) -> KubeObject:
    """What is created in the API for a static pod."""
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "labels") if key in pod["metadata"]}
    node_name = pod["spec"]["nodeName"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid, "controller": True}
    annotations = {**pod["metadata"]["annotations"], _MIRROR: pod["metadata"]["annotations"][_HASH]}
    return {
        **pod,
        "metadata": {**metadata, "annotations": annotations, "ownerReferences": [owner]},
    }


class StaticPods:
    """run() follows the folder. changed(old, new) has an informer handler's form."""

    def __init__(
        self,
        folder: Path,
        node_name: str,
        client: Client,
        changed: Callable[[KubeObject | None, KubeObject | None], None],
    ) -> None:
        self._folder, self._node_name, self._client, self._changed = folder, node_name, client, changed
        self.node_uid = ""
        self.pods: dict[Path, KubeObject] = {}
        self._mirrors: dict[tuple[str, str], KubeObject] = {}

    def mirror_uid(self, pod: KubeObject) -> str | None:
        """The uid of the mirror pod; None while there is none."""
        mirror = self._mirrors.get((pods.namespace(pod), pods.name(pod)))
        return pods.uid(mirror) if mirror else None

    def saw_mirror(self, old: KubeObject | None, new: KubeObject | None) -> KubeObject | None:
        """From the pods' informer. Returns the static pod that the mirror stands for, if it is still there."""
        mirror = new or old
        assert mirror is not None
        key = (pods.namespace(mirror), pods.name(mirror))
        if new is not None:
            self._mirrors[key] = new
        else:
            self._mirrors.pop(key, None)
        return next((p for p in self.pods.values() if (pods.namespace(p), pods.name(p)) == key), None)

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

    def scan(self) -> dict[Path, KubeObject]:
        """The pods of all valid manifests by file; the others are logged."""
        from kubewire.components.base import yamlfile

        found: dict[Path, KubeObject] = {}
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                try:
                    seen = datetime.now(UTC).isoformat()
                    found[path] = read_manifest(yamlfile.read_text(path), str(path), self._node_name, seen)
                except (ManifestError, yamlfile.YamlFileError, OSError) as error:
                    log.error("static pod: %s", error)
        return found

    def _read(self) -> None:
        found = self.scan()
        for path, pod in list(self.pods.items()):
            if path not in found or pods.uid(found[path]) != pods.uid(pod):
                del self.pods[path]
                self._changed(pod, None)
        for path, pod in found.items():
            if path not in self.pods:
                self.pods[path] = pod
                self._changed(None, pod)

    async def _keep_mirrors(self) -> None:
        """Every static pod has its mirror and every mirror its static pod."""
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

    async def _create(self, pod: KubeObject) -> None:
        try:
            await self._client.create(PODS, mirror_of(pod, self.node_uid))
        except ApiError as error:
            if error.status != 409:
                raise

    async def _delete(self, mirror: KubeObject) -> None:
        try:
            await self._client.delete(
                PODS, pods.name(mirror), pods.namespace(mirror), grace_period_seconds=0, uid=pods.uid(mirror)
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise
