"""The subresource pods/ephemeralcontainers, with which kubectl debug adds containers to a running
pod (EphemeralContainersREST of core/pod/storage, ValidatePodEphemeralContainersUpdate).
"""

from __future__ import annotations

from collections.abc import Callable

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.fielderrors import forbidden
from kubewire.components.apiserver.kinds.pods.pod_validation import validate_pod_spec
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import Result, WriteOptions
from kubewire.components.kubeapi.resources import KubeObject

_PATH = "spec.ephemeralContainers"
Transform = Callable[[KubeObject], KubeObject]


def update(
    registry: Registry,
    served: Served,
    namespace: str,
    name: str,
    transform: Transform,
    options: WriteOptions,
) -> Result:
    """Takes only spec.ephemeralContainers from what transform makes of the pod. Raises
    StatusError.
    """

    def added(pod: KubeObject) -> KubeObject:
        before = list(pod["spec"].get("ephemeralContainers") or [])
        wanted = transform({**pod, "spec": dict(pod["spec"])})
        registry.decoding.check_kind(served, wanted)
        registry.decoding.check_types(served, wanted)
        spec = wanted.get("spec") or {}
        pod["metadata"]["resourceVersion"] = (wanted.get("metadata") or {}).get("resourceVersion")
        pod["spec"]["ephemeralContainers"] = spec.get("ephemeralContainers") or []
        served.spec.default(pod)
        errors = validate_pod_spec(pod["spec"], "spec", is_pod=True)
        errors += kept(before, pod["spec"]["ephemeralContainers"])
        if errors:
            raise status.invalid("", "Pod", name, errors)
        return pod

    return registry.update(
        served, namespace, name, added, options, "counted", subresource="ephemeralcontainers"
    )


def kept(before: list[KubeObject], after: list[KubeObject]) -> list[FieldError]:
    """Checks that no ephemeral container was changed or removed."""
    by_name = {container.get("name"): container for container in after}
    errors = []
    for container in before:
        current = by_name.get(container["name"])
        if current != container:
            verb = "removed" if current is None else "changed"
            text = f'existing ephemeral containers "{container["name"]}" may not be {verb}\n'
            errors.append(forbidden(_PATH, text))
    return errors
