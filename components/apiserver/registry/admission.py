"""Built-in admission: changes to and checks of an object that involve other objects.

A kind's own defaults and validation see only the object itself. Admission runs between them, sees
the rest of the cluster, and may change or refuse the write
(https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/). It is the last
step that may change the object: validation comes afterwards and must see the object as it will be
stored.

The controllers here are those without which a default cluster does not work. Their order is
upstream's: NamespaceLifecycle refuses objects in a namespace that is being deleted, which could
otherwise never become empty. ServiceAccount gives each pod an account and a token to talk to the
API server. Priority resolves priorityClassName to a number. DefaultTolerationSeconds keeps pods
for five minutes on a node that fails. Claims and volumes get their class and their protection
(storageadmission.py). The allocation of ClusterIPs and node ports, which upstream
has in the Service's registry, happens here too.

An allocation must not outlive a write that fails. create() and update() therefore return a context
in which the write happens: when it ends with an exception, or the write is a dry run, the
allocator is rebuilt from the stored Services and those being written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry import storageadmission
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.metadata import random_suffix
from kubewire.components.apiserver.store import Event, Key, Store
from kubewire.components.kubeapi.resources import KubeObject

_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3607
_TOLERATION_SECONDS = 300
_SYSTEM_PRIORITIES = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}


class Allocator(Protocol):
    """The part of service_allocation.ServiceAllocator that this module uses."""

    def allocate(self, new: KubeObject, old: KubeObject | None) -> list[FieldError]: ...
    def release(self, service: KubeObject) -> None: ...
    def rebuild(self, services: list[KubeObject]) -> None: ...


class Admission:
    """Admits writes; without an allocator it does not change Services."""

    def __init__(self, store: Store, allocator: Allocator | None) -> None:
        self._store = store
        self._allocator = allocator
        #: Services that are being written, by id(). A rebuild for another, refused write must keep
        #: what they have.
        self._reserved: dict[int, KubeObject] = {}
        self._steps: dict[str, Callable[[KubeObject], None]] = {
            "pods": self._admit_pod,
            "namespaces": _admit_namespace,
            "persistentvolumes": storageadmission.protect_volume,
            "persistentvolumeclaims": lambda claim: storageadmission.admit_claim(store, claim),
        }
        if allocator is not None:
            allocator.rebuild([stored.copy() for stored in store.items("services")])
            store.subscribe("services", self._release)

    def _release(self, event: Event) -> None:
        if event.type == "DELETED" and self._allocator is not None:
            self._allocator.release(event.stored.obj)

    def namespace_exists(self, served: Served, namespace: str, name: str) -> None:
        """Checks that the namespace exists and is not being deleted; raises 404 or 403."""
        if not served.namespaced:
            return
        stored = self._store.get(Key("namespaces", "", namespace))
        if stored is None:
            raise status.not_found("", "namespaces", namespace)
        if not stored.obj["metadata"].get("deletionTimestamp"):
            return
        why = f"unable to create new content in namespace {namespace}"
        why += " because it is being terminated"
        error = status.forbidden(served.group, served.plural, name, why)
        message = f"namespace {namespace} is being terminated"
        cause = {
            "reason": "NamespaceTerminating",
            "message": message,
            "field": "metadata.namespace",
        }
        error.body["details"]["causes"] = [cause]
        raise error

    def create(
        self,
        served: Served,
        obj: KubeObject,
        dry_run: bool,
    ) -> AbstractContextManager[None]:
        """Admits obj in place; when the context ends with an exception, allocations are undone."""
        if step := self._steps.get(served.storage):
            step(obj)
        if served.storage == "services" and self._allocator is not None:
            return self._allocated(self._allocator, obj, None, dry_run)
        return nullcontext()

    def update(
        self,
        served: Served,
        new: KubeObject,
        old: KubeObject,
        dry_run: bool,
    ) -> AbstractContextManager[None]:
        """Admits new in place; when the context ends with an exception, allocations are undone."""
        changed = new.get("spec") != old.get("spec")
        if served.storage == "persistentvolumeclaims" and changed:
            storageadmission.check_growth(self._store, new, old)
        if served.storage == "services" and self._allocator is not None and changed:
            return self._allocated(self._allocator, new, old, dry_run)
        return nullcontext()

    @contextmanager
    def _allocated(
        self, allocator: Allocator, new: KubeObject, old: KubeObject | None, dry_run: bool
    ) -> Iterator[None]:
        call = self._store.owner.call
        kept = False
        try:
            call(self._reserve, allocator, new, old)
            yield
            kept = not dry_run
        finally:
            call(self._settle, allocator, new, kept)

    def _reserve(self, allocator: Allocator, new: KubeObject, old: KubeObject | None) -> None:
        errors = allocator.allocate(new, old)
        self._reserved[id(new)] = new
        if errors:
            # A full range is not caused by a field of the Service, so upstream answers 500.
            if internal := next((error for error in errors if error.type == "InternalError"), None):
                raise status.internal_error(internal.detail)
            raise status.invalid("", "Service", new["metadata"].get("name", ""), errors)

    def _settle(self, allocator: Allocator, new: KubeObject, kept: bool) -> None:
        self._reserved.pop(id(new), None)
        if not kept:
            stored = [item.obj for item in self._store.items("services")]
            allocator.rebuild([*stored, *self._reserved.values()])

    def _admit_pod(self, pod: KubeObject) -> None:
        spec = pod.setdefault("spec", {})
        self._admit_service_account(pod, spec)
        self._admit_priority(pod, spec)
        _add_default_tolerations(spec)

    def _admit_service_account(self, pod: KubeObject, spec: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        if "kubernetes.io/config.mirror" in (metadata.get("annotations") or {}):
            return
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self._store.get(Key("serviceaccounts", metadata["namespace"], name))
        if account is None:
            place = f"{metadata['namespace']}/{name}"
            why = f'error looking up service account {place}: serviceaccount "{name}" not found'
            raise status.forbidden("", "pods", metadata.get("name", ""), why)
        if account.obj.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(secret) for secret in account.obj["imagePullSecrets"]]
        automount = spec.get(
            "automountServiceAccountToken",
            account.obj.get("automountServiceAccountToken", True),
        )
        if automount is not False:
            _mount_token(spec)

    def _admit_priority(self, pod: KubeObject, spec: dict[str, Any]) -> None:
        name = spec.get("priorityClassName", "")
        if name in _SYSTEM_PRIORITIES:
            spec["priority"] = _SYSTEM_PRIORITIES[name]
            spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
            return
        priority_class = self._priority_class(name)
        if name and priority_class is None:
            why = f"no PriorityClass with name {name} was found"
            raise status.forbidden("", "pods", pod["metadata"].get("name", ""), why)
        if priority_class is not None:
            spec["priorityClassName"] = priority_class["metadata"]["name"]
        spec["priority"] = int((priority_class or {}).get("value", 0))
        policy = (priority_class or {}).get("preemptionPolicy")
        spec["preemptionPolicy"] = policy or "PreemptLowerPriority"

    def _priority_class(self, name: str) -> KubeObject | None:
        """The named class, or without a name the global default.

        Of several global defaults the one with the lowest value is used.
        """
        resource = "priorityclasses.scheduling.k8s.io"
        if name:
            named = self._store.get(Key(resource, "", name))
            return named.obj if named else None
        classes = [stored.obj for stored in self._store.items(resource)]
        defaults = [item for item in classes if item.get("globalDefault")]
        return min(
            defaults,
            key=lambda priority_class: int(priority_class.get("value", 0)),
            default=None,
        )


def _admit_namespace(namespace: KubeObject) -> None:
    namespace.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    namespace.setdefault("status", {})["phase"] = "Active"
    labels = namespace["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = namespace["metadata"].get("name", "")


def _mount_token(spec: dict[str, Any]) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    needing = [item for item in containers if not _mounts(item, _TOKEN_MOUNT)]
    if not needing:
        return
    name = f"kube-api-access-{random_suffix()}"
    for container in needing:
        mount = {"name": name, "readOnly": True, "mountPath": _TOKEN_MOUNT}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]
    spec["volumes"] = [*(spec.get("volumes") or []), _token_volume(name)]


def _mounts(container: dict[str, Any], path: str) -> bool:
    return any(mount.get("mountPath") == path for mount in container.get("volumeMounts") or [])


def _token_volume(name: str) -> dict[str, Any]:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


def _add_default_tolerations(spec: dict[str, Any]) -> None:
    tolerations = spec.get("tolerations") or []
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates_no_execute(toleration, key) for toleration in tolerations):
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute"}
            tolerations = [*tolerations, toleration | {"tolerationSeconds": _TOLERATION_SECONDS}]
    spec["tolerations"] = tolerations


def _tolerates_no_execute(toleration: dict[str, Any], key: str) -> bool:
    if toleration.get("key", "") not in ("", key):
        return False
    return toleration.get("effect", "") in ("", "NoExecute")
