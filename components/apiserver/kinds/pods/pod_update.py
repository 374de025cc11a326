"""Validates updates of pods (ValidatePodUpdate and ValidatePodStatusUpdate of
pkg/apis/core/validation).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.addresses import family, validate_legacy_ip
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    immutable,
    in_range,
    invalid,
)
from kubewire.components.apiserver.kinds.pods.pod_validation import validate_pod
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import KubeObject

_UPDATABLE = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)
_TEXT = f"pod updates may not change fields other than {','.join(_UPDATABLE)}\n"
_COUNT_TEXT = "pod updates may not add or remove containers"

Spec = Mapping[str, Any]


def validate_update(new_pod: KubeObject, old_pod: KubeObject) -> list[FieldError]:
    new = new_pod.get("spec") or {}
    old = old_pod.get("spec") or {}
    errors = validate_pod(new_pod)
    for key in ("containers", "initContainers"):
        if len(new.get(key) or ()) != len(old.get(key) or ()):
            return [*errors, forbidden(f"spec.{key}", _COUNT_TEXT)]
    errors += _deadline(new, old) + _tolerations(new, old) + _scheduling_gates(new, old)
    changed = _canonical(_fixed(new, old))
    before = _canonical(dict(old))
    if changed != before:
        errors.append(forbidden("spec", _TEXT + difference(before, changed)))
    return errors


#: Booleans that Go omits when false, so that false and absent are the same.
_OMITTED_FALSE = (
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "stdin",
    "stdinOnce",
    "tty",
    "readOnly",
    "optional",
)


def _canonical(value: Any, amounts: bool = False) -> Any:
    """Makes values with the same meaning equal, as apiequality.Semantic does.

    Absent and empty are equal, and so are the quantities 1 and 1000m.
    """
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if not isinstance(value, dict):
        return value
    if amounts:
        return {key: _amount(item) for key, item in value.items()}
    kept = {key: _canonical(item, key in ("limits", "requests")) for key, item in value.items()}
    return {key: item for key, item in kept.items() if not _is_absent(key, item)}


def _is_absent(key: str, value: Any) -> bool:
    return value is None or value in ({}, [], "") or (value is False and key in _OMITTED_FALSE)


def _amount(text: Any) -> Any:
    try:
        return str(parse_quantity(text))
    except ValueError:
        return text


def _deadline(new: Spec, old: Spec) -> list[FieldError]:
    path = "spec.activeDeadlineSeconds"
    now = new.get("activeDeadlineSeconds")
    was = old.get("activeDeadlineSeconds")
    if now is None:
        text = "must not update from a positive integer to nil value"
        return [invalid(path, None, text)] if was is not None else []
    errors = in_range(path, now, 0, 2**31 - 1)
    if not errors and was is not None and was < now:
        errors.append(invalid(path, now, "must be less than or equal to previous value"))
    return errors


def _tolerations(new: Spec, old: Spec) -> list[FieldError]:
    """Allows new tolerations; of an existing one only tolerationSeconds may change."""
    now = [_without_seconds(toleration) for toleration in new.get("tolerations") or ()]
    if all(_without_seconds(toleration) in now for toleration in old.get("tolerations") or ()):
        return []
    text = "existing toleration can not be modified except its tolerationSeconds"
    return [forbidden("spec.tolerations", text)]


def _without_seconds(toleration: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _scheduling_gates(new: Spec, old: Spec) -> list[FieldError]:
    known = {gate.get("name") for gate in old.get("schedulingGates") or ()}
    return [
        forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for index, gate in enumerate(new.get("schedulingGates") or ())
        if gate.get("name") not in known
    ]


def _fixed(new: Spec, old: Spec) -> dict[str, Any]:
    """The new spec with the fields that may change set back to their old values."""
    spec = copy.deepcopy(dict(new))
    for key in ("containers", "initContainers"):
        for container, before in zip(spec.get(key) or (), old.get(key) or (), strict=False):
            container["image"] = before.get("image")
    for key in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        spec.pop(key, None)
        if key in old:
            spec[key] = old[key]
    grace = "terminationGracePeriodSeconds"
    if old.get(grace, 0) < 0 and spec.get(grace) == 1:
        spec[grace] = old[grace]
    if old.get("schedulingGates"):
        _put_back_node_choice(spec, old)
    return spec


def _put_back_node_choice(spec: dict[str, Any], old: Spec) -> None:
    """Allows a pod with scheduling gates to narrow its nodeSelector."""
    wanted = spec.get("nodeSelector") or {}
    before = old.get("nodeSelector") or {}
    if all(wanted.get(key) == value for key, value in before.items()):
        spec.pop("nodeSelector", None)
        if "nodeSelector" in old:
            spec["nodeSelector"] = old["nodeSelector"]


def difference(old: Any, new: Any, path: str = "spec") -> str:
    """Lists the differences, a line for each, as in `  spec.nodeName: "a" -> "b"`.

    Upstream prints a diff of Go structs instead.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return "".join(difference(old.get(key), new.get(key), f"{path}.{key}") for key in keys)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return "".join(difference(was, now, f"{path}[{index}]") for index, (was, now) in pairs)
    return "" if old == new else f"  {path}: {_shown(old)} -> {_shown(new)}\n"


def _shown(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()


def validate_status_update(new_pod: KubeObject, old_pod: KubeObject) -> list[FieldError]:
    new = new_pod.get("status") or {}
    old = old_pod.get("status") or {}
    spec = old_pod.get("spec") or {}
    errors = []
    node = new.get("nominatedNodeName")
    if node and node != old.get("nominatedNodeName"):
        errors += by_rule(names.dns1123_subdomain, "status.nominatedNodeName", node)
    if old.get("qosClass"):
        errors += immutable("status.qosClass", new.get("qosClass"), old["qosClass"])
    policy = spec.get("restartPolicy", "Always")
    sidecars = {
        container.get("name")
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    errors += _transitions(new, old, "containerStatuses", policy, set())
    errors += _transitions(new, old, "initContainerStatuses", policy, sidecars)
    errors += _transitions(new, old, "ephemeralContainerStatuses", "Never", set())
    return errors + _addresses(new.get("podIPs") or (), "status.podIPs") + _host_addresses(new)


def _transitions(new: Spec, old: Spec, key: str, policy: str, exempt: set[Any]) -> list[FieldError]:
    """Forbids that a container which has ended for good runs again."""
    if policy == "Always":
        return []
    now = {status.get("name"): status for status in new.get(key) or ()}
    errors = []
    for index, before in enumerate(old.get(key) or ()):
        ended = (before.get("state") or {}).get("terminated")
        after = now.get(before.get("name"))
        if ended is None or after is None or before.get("name") in exempt:
            continue
        if ended.get("exitCode") and policy == "OnFailure":
            continue
        if (after.get("state") or {}).get("terminated") is None:
            text = "may not be transitioned to non-terminated state"
            errors.append(forbidden(f"status.{key}[{index}].state", text))
    return errors


def _addresses(items: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    addresses = [item.get("ip") or "" for item in items]
    errors: list[FieldError] = []
    for index, ip in enumerate(addresses):
        errors += validate_legacy_ip(f"{path}[{index}]", ip)
    if len(addresses) < 2:
        return errors
    if len(addresses) > 2 or len({family(ip) for ip in addresses}) < 2:
        errors.append(
            invalid(path, list(items), "may specify no more than one IP for each IP family"),
        )
    seen = set[str]()
    for index, ip in enumerate(addresses):
        if ip in seen:
            errors.append(duplicate(f"{path}[{index}]", dict(items[index])))
        seen.add(ip)
    return errors


def _host_addresses(status: Spec) -> list[FieldError]:
    items = status.get("hostIPs") or ()
    if not items:
        return []
    errors = []
    if items[0].get("ip") != status.get("hostIP"):
        errors.append(
            invalid("status.hostIPs[0].ip", items[0].get("ip"), "must be equal to `hostIP`"),
        )
    return errors + _addresses(items, "status.hostIPs")
