"""Warnings about pods and pod templates (pkg/api/pod/warnings.go)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.warnings.addresses import ip_warnings
from kubewire.components.apiserver.kinds.warnings.amounts import fraction_warnings
from kubewire.components.apiserver.kinds.warnings.nodelabels import (
    DEPRECATED,
    affinity_warnings,
    selector_warnings,
)
from kubewire.components.apiserver.kinds.warnings.ports import port_warnings
from kubewire.components.apiserver.kinds.warnings.volumes import volume_warnings
from kubewire.components.kubeapi.resources import KubeObject

Spec = Mapping[str, Any]

_USE_SYSCTLS = 'non-functional in v1.11+; use the "sysctls" field instead'
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": _USE_SYSCTLS,
    "security.alpha.kubernetes.io/unsafe-sysctls": _USE_SYSCTLS,
}
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_USE_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_USE_APPARMOR = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_NO_SELECTOR = "a null labelSelector results in matching no pod"
_AFFINITY = "DuringSchedulingIgnoredDuringExecution"
_BYTES = ("memory", "ephemeral-storage")
_GRACE = "must be >= 0; negative values are invalid and will be treated as 1"


def on_create(pod: KubeObject) -> list[str]:
    wrong = names.dns1123_label(pod["metadata"].get("name", ""))
    warnings = []
    if wrong:
        text = "this is used in the Pod's hostname, which can result in surprising behavior"
        warnings.append(f"metadata.name: {text}; a DNS label is recommended: {go_list(wrong)}")
    return warnings + template_warnings(pod, "")


def go_list(texts: list[str]) -> str:
    """A slice of texts as Go prints it."""
    return f"[{' '.join(texts)}]"


def template_warnings(template: KubeObject, path: str) -> list[str]:
    """About a pod (path "") or the pod template at a path such as spec.template."""
    spec = template.get("spec") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    prefix = f"{path}." if path else ""
    at = f"{prefix}spec"
    return [
        *_placement_warnings(spec, at),
        *_annotation_warnings(spec, annotations, prefix),
        *volume_warnings(spec.get("volumes") or (), f"{at}.volumes"),
        *_list_warnings(spec, at),
        *fraction_warnings(spec.get("overhead"), f"{at}.overhead", *_BYTES),
        *_container_warnings(spec, at),
        *port_warnings(_containers(spec, at)),
        *_grace_warnings(spec, at),
        *_pod_affinity_warnings(spec.get("affinity") or {}, f"{at}.affinity"),
    ]


def _containers(spec: Spec, path: str) -> Iterator[tuple[str, Spec]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield f"{path}.{field}[{index}]", container


def _placement_warnings(spec: Spec, path: str) -> list[str]:
    if spec.keys().isdisjoint(("nodeSelector", "affinity", "topologySpreadConstraints")):
        return []
    warnings = selector_warnings(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    warnings += affinity_warnings(affinity, f"{path}.affinity.nodeAffinity")
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        at = f"{path}.topologySpreadConstraints[{index}]"
        key = constraint.get("topologyKey", "")
        if key in DEPRECATED:
            warnings.append(f"{at}.topologyKey: {key} is {DEPRECATED[key]}")
        if constraint.get("labelSelector") is None:
            warnings.append(f"{at}.labelSelector: {_NO_SELECTOR}")
    return warnings


def _pod_affinity_warnings(affinity: Spec, path: str) -> list[str]:
    if not affinity:
        return []
    warnings = []
    for field in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(field) or {}
        at = f"{path}.{field}.required{_AFFINITY}"
        for index, term in enumerate(terms.get(f"required{_AFFINITY}") or ()):
            if term.get("labelSelector") is None:
                warnings.append(f"{at}[{index}].labelSelector: {_NO_SELECTOR}")
        at = f"{path}.{field}.preferred{_AFFINITY}"
        for index, term in enumerate(terms.get(f"preferred{_AFFINITY}") or ()):
            if (term.get("podAffinityTerm") or {}).get("labelSelector") is None:
                warnings.append(f"{at}[{index}].podAffinityTerm.labelSelector: {_NO_SELECTOR}")
    return warnings


def _annotation_warnings(spec: Spec, annotations: Mapping[str, str], prefix: str) -> list[str]:
    if not annotations:
        return []
    at = f"{prefix}metadata.annotations"
    warnings = [f"{at}[{key}]: {text}" for key, text in _ANNOTATIONS.items() if key in annotations]
    security = spec.get("securityContext") or {}
    if _SECCOMP in annotations and not security.get("seccompProfile"):
        warnings.append(f"{at}[{_SECCOMP}]: {_USE_SECCOMP}")
    for _, container in _containers(spec, ""):
        own = container.get("securityContext") or {}
        key = _SECCOMP_CONTAINER + container.get("name", "")
        if key in annotations and not own.get("seccompProfile"):
            warnings.append(f"{at}[{key}]: {_USE_SECCOMP}")
        key = _APPARMOR + container.get("name", "")
        profile = security.get("appArmorProfile") or own.get("appArmorProfile")
        if key in annotations and not profile:
            warnings.append(f"{at}[{key}]: {_USE_APPARMOR}")
    return warnings


def _list_warnings(spec: Spec, path: str) -> list[str]:
    """About items of lists that stand for the same thing."""
    if spec.keys().isdisjoint(("hostAliases", "imagePullSecrets", "dnsConfig")):
        return []
    warnings = []
    seen: set[str] = set()
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        address = alias.get("ip", "")
        at = f"{path}.hostAliases[{index}].ip"
        if address in seen:
            warnings.append(f'{at}: duplicate ip "{address}"')
        seen.add(address)
        warnings += ip_warnings(at, address)
    seen = set()
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        name = secret.get("name", "")
        at = f"{path}.imagePullSecrets[{index}].name"
        if name in seen:
            warnings.append(f'{at}: duplicate name "{name}"')
        if not name:
            warnings.append(f'{at}: invalid empty name ""')
        seen.add(name)
    servers = (spec.get("dnsConfig") or {}).get("nameservers") or ()
    for index, server in enumerate(servers):
        warnings += ip_warnings(f"{path}.dnsConfig.nameservers[{index}]", server)
    return warnings


def _container_warnings(spec: Spec, path: str) -> list[str]:
    warnings = []
    for at, container in _containers(spec, path):
        resources = container.get("resources") or {}
        for field in ("limits", "requests"):
            if amounts := resources.get(field):
                warnings += fraction_warnings(amounts, f"{at}.resources.{field}", *_BYTES)
        warnings += _environment_warnings(container, at)
    return warnings


def _environment_warnings(container: Spec, path: str) -> list[str]:
    """About a variable that replaces an earlier one, unless it extends its value."""
    variables = container.get("env") or ()
    if len(variables) < 2:
        return []
    warnings = []
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        name = variable.get("name", "")
        if name in seen and _hides(variable, f"$({name})"):
            text = f'hides previous definition of "{name}", which may be dropped when using apply'
            warnings.append(f"{path}.env[{index}]: {text}")
        seen.add(name)
    return warnings


def _hides(variable: Spec, reference: str) -> bool:
    value = variable.get("value") or ""
    return bool(variable.get("valueFrom")) or value == reference or reference not in value


def _grace_warnings(spec: Spec, path: str) -> list[str]:
    grace = spec.get("terminationGracePeriodSeconds")
    negative = grace is not None and grace < 0
    return [f"{path}.terminationGracePeriodSeconds: {_GRACE}"] if negative else []
