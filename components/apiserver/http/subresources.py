"""The subresources that have rules of their own: binding, scale and token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.tokens import ServiceAccountTokens
from kubewire.components.apiserver.kinds.spec import FieldError, ScalePaths
from kubewire.components.apiserver.registry import metadata
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.requests import Result, WriteOptions
from kubewire.components.apiserver.store import Key
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector

_SHORTEST_TOKEN = 600
_LONGEST_TOKEN = 1 << 32


def bind(
    registry: Registry,
    served: Served,
    namespace: str,
    name: str,
    body: KubeObject,
    options: WriteOptions,
) -> Result:
    """Sets spec.nodeName and the condition PodScheduled, once (BindingREST of core/pod/storage)."""
    target = body.get("target") or {}
    if not target.get("name"):
        raise status.invalid("", "Binding", name, [FieldError("Required", "target.name", "", "")])
    if target.get("kind") not in (None, "", "Node"):
        supported = 'supported values: "Node", "<empty>"'
        error = FieldError("NotSupported", "target.kind", target["kind"], supported)
        raise status.invalid("", "Binding", name, [error])
    wanted_uid = (body.get("metadata") or {}).get("uid")

    def assign(pod: KubeObject) -> KubeObject:
        if wanted_uid and wanted_uid != pod["metadata"]["uid"]:
            uid = pod["metadata"]["uid"]
            text = f"UID in precondition: {wanted_uid}, UID in object meta: {uid}"
            raise status.conflict("", "pods/binding", name, f"Precondition failed: {text}")
        return _assigned(pod, target["name"], body.get("metadata") or {})

    registry.update(
        served,
        namespace,
        name,
        assign,
        options,
        "raw",
        track=False,
        subresource="binding",
        admitted=True,
    )
    answer = status.created()
    return Result(answer, orjson.dumps(answer), 201)


def _assigned(pod: KubeObject, node: str, binding: KubeObject) -> KubeObject:
    """The pod on its node, with the labels and annotations of the binding's metadata."""
    name = pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise status.conflict("", "pods/binding", name, why)
    if assigned := pod["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{assigned}"'
        raise status.conflict("", "pods/binding", name, why)
    if gates := pod["spec"].get("schedulingGates"):
        names = ", ".join(gate["name"] for gate in gates)
        why = f"pod {name} has non-empty .spec.schedulingGates: {names}"
        raise status.conflict("", "pods/binding", name, why)
    pod["spec"]["nodeName"] = node
    for field in ("labels", "annotations"):
        if given := binding.get(field):
            pod["metadata"][field] = (pod["metadata"].get(field) or {}) | given
    conditions = pod.setdefault("status", {}).get("conditions") or []
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": metadata.timestamp(),
    }
    rest = [item for item in conditions if item.get("type") != "PodScheduled"]
    pod["status"]["conditions"] = [*rest, scheduled]
    return pod


def read_path(obj: KubeObject, path: str) -> Any:
    """The value at a path such as ".spec.replicas", or None."""
    value: Any = obj
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _write_path(obj: KubeObject, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for part in parents:
        obj = obj.setdefault(part, {})
    obj[last] = value


def scale_of(served: Served, obj: KubeObject) -> KubeObject:
    """The object's Scale (autoscaling/v1)."""
    paths = _scale_paths(served)
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    scale: KubeObject = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {},
        "status": {"replicas": read_path(obj, paths.status_replicas) or 0},
    }
    if replicas := read_path(obj, paths.spec_replicas):
        scale["spec"]["replicas"] = replicas
    if selector := _selector_text(
        read_path(obj, paths.label_selector) if paths.label_selector else None,
    ):
        scale["status"]["selector"] = selector
    return scale


def set_scale(served: Served, obj: KubeObject, scale: KubeObject) -> KubeObject:
    """The object with the replicas and the preconditions of a Scale."""
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if not isinstance(replicas, int) or replicas < 0:
        error = FieldError(
            "Invalid",
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        )
        raise status.invalid("autoscaling", "Scale", obj["metadata"]["name"], [error])
    _write_path(obj, _scale_paths(served).spec_replicas, replicas)
    for key in ("resourceVersion", "uid"):
        value = (scale.get("metadata") or {}).get(key)
        if value:
            obj["metadata"][key] = value
        elif key == "resourceVersion":
            obj["metadata"].pop(key, None)
    return obj


def _scale_paths(served: Served) -> ScalePaths:
    if served.spec.scale is None:
        raise status.no_such_path()
    return served.spec.scale


def _selector_text(selector: Any) -> str:
    if isinstance(selector, str):
        return selector
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" in selector or "matchExpressions" in selector:
        return str(LabelSelector.from_object(selector))
    return str(LabelSelector.from_map(selector))


def issue_token(
    registry: Registry, tokens: ServiceAccountTokens, namespace: str, name: str, body: KubeObject
) -> Result:
    """Answers a TokenRequest with a token bound to the account and possibly a pod, secret or
    node.
    """
    account = registry.store.get(Key("serviceaccounts", namespace, name))
    if account is None:
        raise status.not_found("", "serviceaccounts", name)
    spec = body.setdefault("spec", {})
    seconds = int(spec.get("expirationSeconds") or 3600)
    _check_lifetime(seconds)
    claims: dict[str, Any] = {
        "namespace": namespace,
        "serviceaccount": {"name": name, "uid": account.obj["metadata"]["uid"]},
    }
    claims |= _bound_claims(registry, namespace, name, spec.get("boundObjectRef"))
    audiences = tuple(spec.get("audiences") or tokens.audiences)
    subject = f"system:serviceaccount:{namespace}:{name}"
    token, expires = tokens.issue(claims, subject, audiences, seconds)
    expiration = metadata.timestamp(datetime.fromtimestamp(expires, UTC))
    answer = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": metadata.timestamp(),
        },
        "spec": spec | {"audiences": list(audiences), "expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": expiration},
    }
    return Result(answer, orjson.dumps(answer), 201)


def _check_lifetime(seconds: int) -> None:
    if seconds < _SHORTEST_TOKEN:
        text = "may not specify a duration less than 10 minutes"
    elif seconds > _LONGEST_TOKEN:
        text = "may not specify a duration larger than 2^32 seconds"
    else:
        return
    error = FieldError("Invalid", "spec.expirationSeconds", seconds, text)
    raise status.invalid("authentication.k8s.io", "TokenRequest", "", [error])


def _bound_claims(
    registry: Registry,
    namespace: str,
    account: str,
    reference: Any,
) -> dict[str, Any]:
    if not reference:
        return {}
    kind = reference.get("kind", "")
    name = reference.get("name", "")
    storage = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
    if storage is None:
        version = reference.get("apiVersion", "")
        raise status.bad_request(f"cannot bind token to object of type {version}, Kind={kind}")
    stored = registry.store.get(Key(storage, "" if kind == "Node" else namespace, name))
    if stored is None:
        raise status.not_found("", storage, name)
    uid = stored.obj["metadata"]["uid"]
    if reference.get("uid") and reference["uid"] != uid:
        why = (
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID "
            "in record. "
            "The object might have been deleted and then recreated"
        )
        raise status.conflict("", storage, name, why)
    claims: dict[str, Any] = {kind.lower(): {"name": name, "uid": uid}}
    if kind == "Pod":
        if stored.obj["spec"].get("serviceAccountName") != account:
            text = f'cannot bind token for serviceaccount "{account}" to pod running'
            raise status.bad_request(f"{text} with different serviceaccount name.")
        node = registry.store.get(Key("nodes", "", stored.obj["spec"].get("nodeName", "")))
        if node is not None:
            claims["node"] = {"name": node.key.name, "uid": node.obj["metadata"]["uid"]}
    return claims
