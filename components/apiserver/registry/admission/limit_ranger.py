"""LimitRanger: LimitRanges give containers defaults, and bound what pods and claims ask for
(plugin/pkg/admission/limitranger).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.kubeapi.amounts import shown
from kubewire.components.kubeapi.podresources import pod_limits, pod_requests
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import KubeObject

_ANNOTATION = "kubernetes.io/limit-ranger"
_CLAIMS = "persistentvolumeclaims"

Amounts = Mapping[str, Any]


class LimitRanger(Plugin):
    name = "LimitRanger"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        if subresource:
            return False
        if served.storage == "pods":
            # The containers of a pod that exists cannot be changed.
            return operation == "CREATE"
        return served.storage == _CLAIMS and operation in ("CREATE", "UPDATE")

    def admit(self, attributes: Attributes) -> None:
        if attributes.served.storage != "pods":
            return
        for item in self._limits(attributes.namespace):
            if item.get("type") == "Container":
                default_amounts(attributes.obj, item)

    def validate(self, attributes: Attributes) -> None:
        if attributes.operation == "UPDATE" and attributes.obj["metadata"].get("deletionTimestamp"):
            return
        served = attributes.served
        claims = served.storage == _CLAIMS
        check = claim_errors if claims else pod_errors
        errors = [
            text
            for item in self._limits(attributes.namespace)
            for text in check(attributes.obj, item)
        ]
        if errors:
            unique = list(dict.fromkeys(errors))
            why = unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
            raise status.forbidden("", served.plural, attributes.name, why)

    def _limits(self, namespace: str) -> Iterator[KubeObject]:
        for stored in self.store.items("limitranges"):
            if stored.key.namespace == namespace:
                yield from (stored.obj.get("spec") or {}).get("limits") or ()


def default_amounts(pod: KubeObject, item: KubeObject) -> None:
    """Gives each container what it does not ask for, and notes that in an annotation."""
    notes: list[str] = []
    for field, title in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            notes += _default_container(container, item, f"{title} {container.get('name', '')}")
    if notes:
        annotations = pod["metadata"].get("annotations") or {}
        text = f"LimitRanger plugin set: {'; '.join(notes)}"
        pod["metadata"]["annotations"] = {**annotations, _ANNOTATION: text}


def _default_container(container: KubeObject, item: KubeObject, title: str) -> list[str]:
    notes = []
    resources = container.get("resources") or {}
    for field, source in (("requests", "defaultRequest"), ("limits", "default")):
        given = resources.get(field) or {}
        added = {
            name: amount for name, amount in (item.get(source) or {}).items() if name not in given
        }
        if added:
            resources[field] = {**given, **added}
            notes.append(f"{', '.join(sorted(added))} {field.removesuffix('s')} for {title}")
    if resources:
        container["resources"] = resources
    return notes


def pod_errors(pod: KubeObject, item: KubeObject) -> list[str]:
    """What the pod or its containers ask for beyond one item of a LimitRange."""
    spec = pod["spec"]
    if item.get("type") == "Pod":
        return _errors(item, shown(pod_requests(spec)), shown(pod_limits(spec)))
    if item.get("type") != "Container":
        return []
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return [
        text
        for container in containers
        for text in _errors(
            item,
            (container.get("resources") or {}).get("requests") or {},
            (container.get("resources") or {}).get("limits") or {},
        )
    ]


def claim_errors(claim: KubeObject, item: KubeObject) -> list[str]:
    if item.get("type") != "PersistentVolumeClaim":
        return []
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    errors = _each(item, "min", lambda name, bound: _minimum(item, name, bound, requests, {}))
    for name, bound in sorted((item.get("max") or {}).items()):
        title = _title("maximum", item, name, bound)
        if name not in requests:
            errors.append(f"{title}.  No request is specified")
        elif parse_quantity(requests[name]) > parse_quantity(bound):
            errors.append(f"{title}, but request is {requests[name]}")
    return errors


def _errors(item: KubeObject, requests: Amounts, limits: Amounts) -> list[str]:
    return [
        *_each(item, "min", lambda name, bound: _minimum(item, name, bound, requests, limits)),
        *_each(item, "max", lambda name, bound: _maximum(item, name, bound, requests, limits)),
        *_each(
            item,
            "maxLimitRequestRatio",
            lambda name, bound: _ratio(item, name, bound, requests, limits),
        ),
    ]


def _each(item: KubeObject, field: str, check: Any) -> list[str]:
    bounds: Iterable[tuple[str, Any]] = sorted((item.get(field) or {}).items())
    return [text for name, bound in bounds if (text := check(name, bound))]


def _title(word: str, item: KubeObject, name: str, bound: Any) -> str:
    return f"{word} {name} usage per {item['type']} is {bound}"


def _minimum(item: KubeObject, name: str, bound: Any, requests: Amounts, limits: Amounts) -> str:
    title = _title("minimum", item, name, bound)
    if name not in requests:
        return f"{title}.  No request is specified"
    if parse_quantity(requests[name]) < parse_quantity(bound):
        return f"{title}, but request is {requests[name]}"
    if name in limits and parse_quantity(limits[name]) < parse_quantity(bound):
        return f"{title}, but limit is {limits[name]}"
    return ""


def _maximum(item: KubeObject, name: str, bound: Any, requests: Amounts, limits: Amounts) -> str:
    title = _title("maximum", item, name, bound)
    if name not in limits:
        return f"{title}.  No limit is specified"
    if parse_quantity(limits[name]) > parse_quantity(bound):
        return f"{title}, but limit is {limits[name]}"
    if name in requests and parse_quantity(requests[name]) > parse_quantity(bound):
        return f"{title}, but request is {requests[name]}"
    return ""


def _ratio(item: KubeObject, name: str, bound: Any, requests: Amounts, limits: Amounts) -> str:
    title = f"{name} max limit to request ratio per {item['type']} is {bound}"
    request = parse_quantity(requests.get(name, 0))
    limit = parse_quantity(limits.get(name, 0))
    if not request:
        return f"{title}, but no request is specified or request is 0"
    if not limit:
        return f"{title}, but no limit is specified or limit is 0"
    ratio = limit / request
    return f"{title}, but provided ratio is {ratio:.6f}" if ratio > parse_quantity(bound) else ""
