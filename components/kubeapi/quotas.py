"""What objects count for in ResourceQuotas (k8s.io/kubernetes/pkg/quota/v1/evaluator/core).

The API server adds what a new object would use, and the controllers count what there is. Both must
come to the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kubewire.components.kubeapi.amounts import Amount, Amounts
from kubewire.components.kubeapi.podresources import pod_limits, pod_requests
from kubewire.components.kubeapi.resources import KubeObject

ONE = Amount.of(1)
PODS = "pods"
SERVICES = "services"
CLAIMS = "persistentvolumeclaims"
#: Resources that may also be counted under their own names, as before there was count/.
_OLD_COUNTS = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
#: What each container of a pod must name when a quota bounds it.
_NEEDED = frozenset(
    ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
)
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def resource_of(hard: str) -> str:
    """The resource, as plural or plural.group, whose objects use an entry of a quota.

    `count/deployments.apps` is deployments.apps, and `limits.cpu` is pods.
    """
    if hard.startswith("count/"):
        return hard.removeprefix("count/")
    if hard in _OLD_COUNTS:
        return hard
    if hard == SERVICES or hard.startswith("services."):
        return SERVICES
    if hard in (CLAIMS, "requests.storage") or _CLASS_SUFFIX in hard:
        return CLAIMS
    return PODS


def usage(resource: str, obj: KubeObject, now: datetime | None = None) -> Amounts:
    """What the object uses of every entry that a quota may have."""
    counted = {f"count/{resource}": ONE}
    if resource in _OLD_COUNTS:
        return counted | {resource: ONE}
    if resource == PODS:
        return counted | (_pod_usage(obj) if counts(obj, now or datetime.now(UTC)) else {})
    if resource == SERVICES:
        return counted | _service_usage(obj.get("spec") or {})
    if resource == CLAIMS:
        return counted | _claim_usage(obj)
    return counted


def counts(pod: KubeObject, now: datetime) -> bool:
    """Whether the pod still uses its node: it has not ended, and its grace is not over."""
    if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return False
    metadata = pod["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("deletionGracePeriodSeconds") is None:
        return True
    grace = timedelta(seconds=int(metadata["deletionGracePeriodSeconds"]))
    return now <= datetime.fromisoformat(metadata["deletionTimestamp"]) + grace


def _pod_usage(pod: KubeObject) -> Amounts:
    spec = pod.get("spec") or {}
    return {PODS: ONE} | compute_usage(pod_requests(spec), pod_limits(spec))


def compute_usage(requests: Mapping[str, Amount], limits: Mapping[str, Amount]) -> Amounts:
    result: Amounts = {}
    for name, amount in requests.items():
        result[f"requests.{name}"] = amount
        if name in _COMPUTE or name.startswith("hugepages-"):
            result[name] = amount
    for name, amount in limits.items():
        if name in _COMPUTE:
            result[f"limits.{name}"] = amount
    return result


def _service_usage(spec: Mapping[str, Any]) -> Amounts:
    ports = spec.get("ports") or ()
    result = {SERVICES: ONE}
    if spec.get("type") == "NodePort":
        result["services.nodeports"] = Amount.of(len(ports))
    elif spec.get("type") == "LoadBalancer":
        result["services.loadbalancers"] = ONE
        given = [port for port in ports if port.get("nodePort")]
        needed = given if spec.get("allocateLoadBalancerNodePorts") is False else ports
        result["services.nodeports"] = Amount.of(len(needed))
    return result


def _claim_usage(claim: KubeObject) -> Amounts:
    spec = claim.get("spec") or {}
    result = {CLAIMS: ONE}
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is not None:
        result["requests.storage"] = Amount.of(size)
    annotations = claim["metadata"].get("annotations") or {}
    name = annotations.get(_BETA_CLASS) or spec.get("storageClassName")
    if name:
        result |= {f"{name}{_CLASS_SUFFIX}{entry}": amount for entry, amount in result.items()}
    return result


def missing(pod: KubeObject, hard: Iterable[str]) -> str:
    """What containers have to name because a quota bounds it, or an empty text."""
    spec = pod.get("spec") or {}
    needed = sorted(_NEEDED.intersection(hard))
    silent: dict[str, set[str]] = {}
    if spec.get("resources"):
        named = compute_usage(pod_requests(spec), pod_limits(spec))
        needed = [name for name in needed if name not in named]
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        alone = {"containers": [container]}
        named = compute_usage(pod_requests(alone), pod_limits(alone))
        for name in needed:
            if name not in named:
                silent.setdefault(name, set()).add(container.get("name", ""))
    return "; ".join(f"{name} for: {','.join(sorted(who))}" for name, who in sorted(silent.items()))


def matches(quota: KubeObject, resource: str, obj: KubeObject) -> bool:
    """Whether the quota's scopes select the object; only pods and claims have scopes."""
    spec = quota.get("spec") or {}
    wanted = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    wanted += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if not wanted:
        return True
    if resource == PODS:
        return all(_pod_in_scope(obj, scope) for scope in wanted)
    if resource == CLAIMS:
        return all(_claim_in_scope(obj, scope) for scope in wanted)
    return False


def _pod_in_scope(pod: KubeObject, scope: Mapping[str, Any]) -> bool:
    spec = pod.get("spec") or {}
    match scope.get("scopeName"):
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return is_best_effort(spec)
        case "NotBestEffort":
            return not is_best_effort(spec)
        case "PriorityClass":
            return _selects(scope, spec.get("priorityClassName", ""))
        case "CrossNamespacePodAffinity":
            return _reaches_other_namespaces(spec.get("affinity") or {})
    return False


def _claim_in_scope(claim: KubeObject, scope: Mapping[str, Any]) -> bool:
    name = (claim.get("spec") or {}).get("volumeAttributesClassName") or ""
    return scope.get("scopeName") == "VolumeAttributesClass" and _selects(scope, name)


def _selects(scope: Mapping[str, Any], value: str) -> bool:
    values = scope.get("values") or ()
    match scope.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return bool(value)
        case "DoesNotExist":
            return not value
    return False


def is_best_effort(spec: Mapping[str, Any]) -> bool:
    """Whether no container asks for CPU or memory."""
    totals = (pod_requests(spec), pod_limits(spec))
    return not any(
        total[name].value for total in totals for name in ("cpu", "memory") if name in total
    )


def _reaches_other_namespaces(affinity: Mapping[str, Any]) -> bool:
    terms: list[Mapping[str, Any]] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        given = affinity.get(kind) or {}
        terms += given.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        weighted = given.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [item.get("podAffinityTerm") or {} for item in weighted]
    return any(
        term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms
    )
