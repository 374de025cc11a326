"""Follows a cluster's policies: informers feed a compiler, and an engine hears what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.fields import only
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.resources import KubeObject, Resource
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.compiler.kinds import CORE, POLICIES, Kind
from kubewire.components.policy.model import Changes, ObjectKey, State

Changed = Callable[[State, Changes], Awaitable[None]]

_METADATA = {"name", "namespace", "uid", "resourceVersion", "labels", "deletionTimestamp"}
_POD_SPEC = {"nodeName", "hostNetwork", "serviceAccountName"}
_CONTAINER = {"ports", "restartPolicy"}


class Follower:
    """kinds: of policies, as ObjectKey.kind has them; pods, namespaces and what else they need are
    followed too. changed is called first with everything, when all kinds have been listed, and then
    after each burst of changes, one call at a time. During a call the state stands still; what
    changes meanwhile comes in the next one. An error of changed ends run(): what it was told would
    be lost otherwise."""

    def __init__(
        self,
        client: Client,
        kinds: Iterable[str],
        changed: Changed,
        *,
        gather: float = 0.005,
    ) -> None:
        """gather: seconds to wait for the rest of a burst after its first change. Raises KeyError
        for a kind that the compiler does not know."""
        self.compiler = Compiler()
        self.synced = asyncio.Event()
        self._changed = changed
        self._gather = gather
        #: What has changed in the cluster and is not compiled yet; None is deleted.
        self._pending: dict[ObjectKey, KubeObject | None] = {}
        self._dirty = asyncio.Event()
        by_name = {kind.name: kind for kind in POLICIES}
        wanted = [by_name[name] for name in kinds]
        self.informers = [
            *(self._core(client, name) for name in _core_kinds(wanted)),
            *(self._policies(client, kind) for kind in wanted),
        ]

    async def run(self) -> None:
        """Runs until cancelled, or until changed raises."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self.informers:
                tasks.create_task(informer.run())
            await wait_synced(*self.informers)
            self._compile()
            await self._changed(self.compiler.state, self.compiler.changes())
            self.synced.set()
            while True:
                await self._dirty.wait()
                await asyncio.sleep(self._gather)
                self._compile()
                changes = self.compiler.changes()
                if changes:
                    await self._changed(self.compiler.state, changes)

    def _core(self, client: Client, name: str) -> Informer[Any]:
        transform = _slim_pod if name == "Pod" else _slim
        return Informer(client, CORE[name], handler=self._handler(name), transform=transform)

    def _policies(self, client: Client, kind: Kind) -> Informer[Any]:
        """Kinds of groups with a dot that are not Kubernetes' own come from a CRD."""
        return Informer(
            client,
            kind.resource,
            handler=self._handler(kind.name),
            transform=_slim,
            optional=_custom(kind.resource),
        )

    def _handler(self, name: str) -> Callable[[Any, Any], None]:
        def handle(old: KubeObject | None, new: KubeObject | None) -> None:
            metadata = (new or old or {})["metadata"]
            key = ObjectKey(name, metadata.get("namespace") or "", metadata["name"])
            self._pending.pop(key, None)  # the order is that of the last changes
            self._pending[key] = new
            self._dirty.set()

        return handle

    def _compile(self) -> None:
        pending, self._pending = self._pending, {}
        self._dirty.clear()
        for key, obj in pending.items():
            if obj is None:
                self.compiler.delete(key)
            else:
                self.compiler.apply(obj)


def _core_kinds(kinds: Iterable[Kind]) -> list[str]:
    needed = {"Pod", "Namespace"}.union(*(kind.needs for kind in kinds))
    return [name for name in CORE if name in needed]


def _custom(resource: Resource[Any]) -> bool:
    return resource.group != "networking.k8s.io"


def _slim(obj: KubeObject) -> KubeObject:
    """Without what no policy reads, which is most of an object."""
    kept = {name: value for name, value in obj.items() if name != "metadata"}
    return {**kept, "metadata": only(_METADATA, obj["metadata"])}


def _slim_pod(pod: KubeObject) -> KubeObject:
    spec: Mapping[str, Any] = pod.get("spec") or {}
    kept = only(_POD_SPEC, spec)
    return {
        "apiVersion": pod.get("apiVersion"),
        "kind": pod.get("kind"),
        "metadata": only(_METADATA, pod["metadata"]),
        "spec": {
            **kept,
            "containers": [only(_CONTAINER, one) for one in spec.get("containers") or ()],
            "initContainers": [only(_CONTAINER, one) for one in spec.get("initContainers") or ()],
        },
        "status": only({"phase", "podIP", "podIPs"}, pod.get("status") or {}),
    }
