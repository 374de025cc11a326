"""Validates containers (validateContainers of pkg/apis/core/validation/validation.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    in_range,
    invalid,
    not_negative,
    not_supported,
    one_of,
    port_number_or_name,
    required,
)
from kubewire.components.apiserver.kinds.pods.environment_validation import (
    validate_environment,
    validate_environment_sources,
)
from kubewire.components.apiserver.kinds.pods.resource_amounts import validate_requirements
from kubewire.components.apiserver.kinds.spec import FieldError

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_NOT_IN_EPHEMERAL = (
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
)

Container = Mapping[str, Any]


@dataclass(frozen=True)
class PodContext:
    """What the validation of a container needs to know of its pod; volumes maps names to
    volumes.
    """

    volumes: Mapping[str, Mapping[str, Any]]
    grace_period: int | None
    restart_policy: str
    is_pod: bool


def validate_containers(
    containers: Sequence[Container],
    path: str,
    pod: PodContext,
) -> list[FieldError]:
    if not containers:
        return [required(path)]
    errors = []
    seen = set[str]()
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        errors += _common(container, at, pod) + _unique(container, at, seen)
        errors += _lifecycle(container, at, pod) + _probes(container, at, pod)
        policy = container.get("restartPolicy")
        if policy is not None:
            errors += one_of(f"{at}.restartPolicy", policy, ("Always", "Never", "OnFailure"))
    return errors + _host_ports(containers, path)


def validate_init_containers(
    containers: Sequence[Container], siblings: Sequence[Container], path: str, pod: PodContext
) -> list[FieldError]:
    """Validates init containers; only sidecars (restartPolicy Always) may have probes and
    lifecycle.
    """
    errors = []
    seen = {item.get("name", "") for item in siblings}
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        errors += _common(container, at, pod)
        policy = container.get("restartPolicy")
        if policy is not None:
            errors += one_of(f"{at}.restartPolicy", policy, ("Always", "Never", "OnFailure"))
        errors += _unique(container, at, seen) + _host_ports([container], path)
        if policy == "Always":
            errors += _lifecycle(container, at, pod) + _probes(container, at, pod)
            continue
        text = "may not be set for init containers without restartPolicy=Always"
        given = [key for key in ("lifecycle", *_PROBES) if container.get(key) is not None]
        errors += [forbidden(f"{at}.{key}", text) for key in given]
    return errors


def validate_ephemeral_containers(
    containers: Sequence[Container], siblings: Sequence[Container], path: str, pod: PodContext
) -> list[FieldError]:
    errors = []
    targets = {item.get("name", "") for item in siblings}
    seen = set(targets)
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        errors += _common(container, at, pod) + _unique(container, at, seen)
        target = container.get("targetContainerName")
        if target and target not in targets:
            errors.append(FieldError("NotFound", f"{at}.targetContainerName", target))
        text = "cannot be set for an Ephemeral Container"
        given = [key for key in _NOT_IN_EPHEMERAL if container.get(key)]
        errors += [forbidden(f"{at}.{key}", text) for key in given]
    return errors


def _unique(container: Container, at: str, seen: set[str]) -> list[FieldError]:
    name = container.get("name") or ""
    if name in seen:
        return [duplicate(f"{at}.name", name)]
    seen.update({name} if name else ())
    return []


def _common(container: Container, at: str, pod: PodContext) -> list[FieldError]:
    name = container.get("name") or ""
    image = container.get("image") or ""
    errors = by_rule(names.dns1123_label, f"{at}.name", name) if name else [required(f"{at}.name")]
    if not image:
        errors.append(required(f"{at}.image"))
    elif pod.is_pod and image != image.strip():
        errors.append(invalid(f"{at}.image", image, "must not have leading or trailing whitespace"))
    policy = container.get("terminationMessagePolicy")
    errors += one_of(f"{at}.terminationMessagePolicy", policy, ("File", "FallbackToLogsOnError"))
    errors += _ports(container.get("ports") or (), f"{at}.ports")
    errors += validate_environment(container.get("env") or (), f"{at}.env")
    errors += validate_environment_sources(container.get("envFrom") or (), f"{at}.envFrom")
    errors += _volume_mounts(container, f"{at}.volumeMounts", pod)
    errors += _volume_devices(container, f"{at}.volumeDevices", pod)
    errors += one_of(f"{at}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    errors += validate_requirements(container.get("resources") or {}, f"{at}.resources")
    return errors + _security_context(container.get("securityContext"), f"{at}.securityContext")


def _ports(ports: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name") or ""
        wrong = by_rule(names.port_name, f"{at}.name", name) if name else []
        errors += wrong
        if name and not wrong and name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if not port.get("containerPort"):
            errors.append(required(f"{at}.containerPort"))
        else:
            errors += in_range(f"{at}.containerPort", port["containerPort"], 1, 65535)
        if port.get("hostPort"):
            errors += in_range(f"{at}.hostPort", port["hostPort"], 1, 65535)
        errors += one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS)
    return errors


def _host_ports(containers: Sequence[Container], path: str) -> list[FieldError]:
    """Each protocol, host address and port may be used only once."""
    errors = []
    seen = set[str]()
    for number, container in enumerate(containers):
        for index, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if key in seen:
                errors.append(duplicate(f"{path}[{number}].ports[{index}].hostPort", key))
            seen.add(key)
    return errors


def _volume_mounts(container: Container, path: str, pod: PodContext) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}[{index}]"
        name = mount.get("name") or ""
        target = mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{at}.name"))
        if name not in pod.volumes:
            errors.append(FieldError("NotFound", f"{at}.name", name))
        if not target:
            errors.append(required(f"{at}.mountPath"))
        if target in seen:
            errors.append(invalid(f"{at}.mountPath", target, "must be unique"))
        seen.add(target)
        errors += _sub_path(mount, at, path)
    return errors


def _sub_path(mount: Mapping[str, Any], at: str, path: str) -> list[FieldError]:
    errors = []
    for key in ("subPath", "subPathExpr"):
        if mount.get(key):
            # Upstream's errors omit the index from this path.
            errors += local_descending_path(mount[key], f"{path}.{key}")
    if mount.get("subPath") and mount.get("subPathExpr"):
        text = "subPathExpr and subPath are mutually exclusive"
        errors.insert(0, invalid(f"{at}.subPathExpr", mount["subPathExpr"], text))
    return errors


def local_descending_path(target: str, path: str) -> list[FieldError]:
    errors = [invalid(path, target, "must be a relative path")] if target.startswith("/") else []
    return errors + no_backsteps(target, path)


def no_backsteps(target: str, path: str) -> list[FieldError]:
    return [invalid(path, target, "must not contain '..'")] if ".." in target.split("/") else []


def _volume_devices(container: Container, path: str, pod: PodContext) -> list[FieldError]:
    errors = []
    for index, device in enumerate(container.get("volumeDevices") or ()):
        at = f"{path}[{index}]"
        name = device.get("name") or ""
        volume = pod.volumes.get(name)
        if not name:
            errors.append(required(f"{at}.name"))
        if volume is None:
            errors.append(FieldError("NotFound", f"{at}.name", name))
        elif "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            text = "can only use volume source type of PersistentVolumeClaim or Ephemeral"
            text += " for block mode"
            errors.append(invalid(f"{at}.name", name, text))
        if not device.get("devicePath"):
            errors.append(required(f"{at}.devicePath"))
    return errors


def _probes(container: Container, at: str, pod: PodContext) -> list[FieldError]:
    errors = []
    for key in _PROBES:
        probe = container.get(key)
        if probe is None:
            continue
        path = f"{at}.{key}"
        errors += _probe(probe, path, pod)
        if key == "readinessProbe":
            if probe.get("terminationGracePeriodSeconds") is not None:
                seconds = probe["terminationGracePeriodSeconds"]
                text = "must not be set for readinessProbes"
                errors.append(invalid(f"{path}.terminationGracePeriodSeconds", seconds, text))
        elif probe.get("successThreshold") != 1:
            errors.append(
                invalid(f"{path}.successThreshold", probe.get("successThreshold"), "must be 1"),
            )
    return errors


def _probe(probe: Mapping[str, Any], path: str, pod: PodContext) -> list[FieldError]:
    errors = _handler(probe, path, pod)
    for key in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        errors += not_negative(f"{path}.{key}", probe.get(key))
    seconds = probe.get("terminationGracePeriodSeconds")
    if seconds is not None and seconds <= 0:
        errors.append(
            invalid(f"{path}.terminationGracePeriodSeconds", seconds, "must be greater than 0"),
        )
    return errors


def _lifecycle(container: Container, at: str, pod: PodContext) -> list[FieldError]:
    errors = []
    lifecycle = container.get("lifecycle") or {}
    for key in ("postStart", "preStop"):
        if lifecycle.get(key) is not None:
            errors += _handler(lifecycle[key], f"{at}.lifecycle.{key}", pod)
    return errors


def _handler(handler: Mapping[str, Any], path: str, pod: PodContext) -> list[FieldError]:
    given = [key for key in _HANDLERS if handler.get(key) is not None]
    if not given:
        return [required(path, "must specify a handler type")]
    errors = _action(given[0], handler[given[0]], f"{path}.{given[0]}", pod)
    return errors + [
        forbidden(
            f"{path}.{key}",
            "may not specify more than 1 handler type",
        )
        for key in given[1:]
    ]


def _action(key: str, action: Mapping[str, Any], path: str, pod: PodContext) -> list[FieldError]:
    match key:
        case "exec":
            return [] if action.get("command") else [required(f"{path}.command")]
        case "httpGet":
            return _http_get(action, path)
        case "sleep":
            seconds = action.get("seconds", 0)
            most = pod.grace_period
            if most is None or 0 <= seconds <= most:
                return []
            text = f"must be non-negative and less than terminationGracePeriodSeconds ({most})"
            return [invalid(path, seconds, text)]
    return port_number_or_name(f"{path}.port", action.get("port", 0))


def _http_get(action: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = [] if action.get("path") else [required(f"{path}.path")]
    errors += port_number_or_name(f"{path}.port", action.get("port", 0))
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        errors.append(not_supported(f"{path}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        errors += by_rule(names.http_header_name, f"{path}.httpHeaders", header.get("name") or "")
    return errors


def _security_context(context: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    if not context:
        return []
    errors = []
    for key in ("runAsUser", "runAsGroup"):
        if context.get(key) is not None:
            errors += in_range(f"{path}.{key}", context[key], 0, 2**32 - 1)
    escalates = context.get("allowPrivilegeEscalation")
    if escalates is False and context.get("privileged"):
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid(path, context, text))
    capabilities = (context.get("capabilities") or {}).get("add") or ()
    if escalates is False and "CAP_SYS_ADMIN" in capabilities:
        text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
        errors.append(invalid(path, context, text))
    return errors
