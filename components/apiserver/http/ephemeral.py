"""pods/ephemeralcontainers: containers added to a pod that runs, as `kubectl debug` does
(core/pod/storage's EphemeralContainersREST, ValidatePodEphemeralContainersUpdate)."""

from __future__ import annotations

from collections.abc import Callable

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.fielderrors import forbidden
from kubewire.components.apiserver.kinds.pods.pod_validation import validate_pod_spec
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.registry import Registry, Result, WriteOptions
from kubewire.components.kubeapi.resources import KubeObject

_PATH = "spec.ephemeralContainers"
Transform = Callable[[KubeObject], KubeObject]


def update(
    registry: Registry, served: Served, namespace: str, name: str, transform: Transform, options: WriteOptions
) -> Result:
    """Takes spec.ephemeralContainers of what transform makes of the pod, and nothing else. Raises StatusError."""

    def added(pod: KubeObject) -> KubeObject:
        before = list(pod["spec"].get("ephemeralContainers") or [])
        wanted = transform({**pod, "spec": dict(pod["spec"])})
        registry.check_types(served, wanted)
        pod["metadata"]["resourceVersion"] = (wanted.get("metadata") or {}).get("resourceVersion")
        pod["spec"]["ephemeralContainers"] = (wanted.get("spec") or {}).get("ephemeralContainers") or []
        served.spec.default(pod)
        errors = validate_pod_spec(pod["spec"], "spec", is_pod=True)
        errors += kept(before, pod["spec"]["ephemeralContainers"])
        if errors:
            raise status.invalid("", "Pod", name, errors)
        return pod

    return registry.update(served, namespace, name, added, options, "raw")


def kept(before: list[KubeObject], after: list[KubeObject]) -> list[FieldError]:
    """An ephemeral container stays as it is for the life of its pod."""
    named = {one.get("name"): one for one in after}
    errors = []
    for one in before:
        found = named.get(one["name"])
        if found != one:
            what = "removed" if found is None else "changed"
            errors.append(forbidden(_PATH, f'existing ephemeral containers "{one["name"]}" may not be {what}\n'))
    return errors
