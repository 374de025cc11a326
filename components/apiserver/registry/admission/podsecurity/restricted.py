"""The checks of level restricted: pods that need no privilege at all."""

from __future__ import annotations

from collections.abc import Callable

from kubewire.components.apiserver.registry.admission.podsecurity.baseline import seccomp_profile
from kubewire.components.apiserver.registry.admission.podsecurity.findings import (
    Finding,
    Metadata,
    Spec,
    containers,
    has_user_namespace,
    is_windows,
    numbered,
    plural,
    quoted,
    security,
)

_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)


def privilege_escalation(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = [
        item["name"]
        for item in containers(spec)
        if security(item).get("allowPrivilegeEscalation") is not False
    ]
    if not bad:
        return None
    text = f"{numbered('container', bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Finding("allowPrivilegeEscalation != false", text)


def privilege_escalation_25(metadata: Metadata, spec: Spec) -> Finding | None:
    return None if is_windows(spec) else privilege_escalation(metadata, spec)


def capabilities(metadata: Metadata, spec: Spec) -> Finding | None:
    keeping = []
    adding = []
    added: set[str] = set()
    for container in containers(spec):
        own = security(container).get("capabilities") or {}
        if "ALL" not in (own.get("drop") or ()):
            keeping.append(container["name"])
        extra = set(own.get("add") or ()) - {"NET_BIND_SERVICE"}
        if extra:
            adding.append(container["name"])
            added |= extra
    faults = []
    if keeping:
        text = 'must set securityContext.capabilities.drop=["ALL"]'
        faults.append(f"{numbered('container', keeping)} {text}")
    if adding:
        text = f"must not include {quoted(sorted(added))} in securityContext.capabilities.add"
        faults.append(f"{numbered('container', adding)} {text}")
    return Finding("unrestricted capabilities", "; ".join(faults)) if faults else None


def capabilities_25(metadata: Metadata, spec: Spec) -> Finding | None:
    return None if is_windows(spec) else capabilities(metadata, spec)


def volume_types(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = []
    kinds: set[str] = set()
    for volume in spec.get("volumes") or ():
        own = [key for key, value in volume.items() if key != "name" and value is not None]
        if any(key in _VOLUMES for key in own):
            continue
        bad.append(volume["name"])
        kinds.update(own or ("unknown",))
    if not bad:
        return None
    use = "uses" if len(bad) == 1 else "use"
    text = f"{use} {plural('restricted volume type', kinds)} {quoted(sorted(kinds))}"
    return Finding("restricted volume types", f"{numbered('volume', bad)} {text}")


def run_as_non_root(metadata: Metadata, spec: Spec) -> Finding | None:
    setters = ["pod"] if security(spec).get("runAsNonRoot") is False else []
    named = [
        item["name"] for item in containers(spec) if security(item).get("runAsNonRoot") is False
    ]
    setters += [numbered("container", named)] if named else []
    reason = "runAsNonRoot != true"
    if setters:
        text = "must not set securityContext.runAsNonRoot=false"
        return Finding(reason, f"{' and '.join(setters)} {text}")
    if security(spec).get("runAsNonRoot"):
        return None
    silent = _silent(spec, "runAsNonRoot")
    text = f"pod or {numbered('container', silent)} must set securityContext.runAsNonRoot=true"
    return Finding(reason, text) if silent else None


def _silent(spec: Spec, field: str) -> list[str]:
    """The containers that leave a field to the pod."""
    return [item["name"] for item in containers(spec) if security(item).get(field) is None]


def run_as_user(metadata: Metadata, spec: Spec) -> Finding | None:
    setters = ["pod"] if security(spec).get("runAsUser") == 0 else []
    named = [item["name"] for item in containers(spec) if security(item).get("runAsUser") == 0]
    setters += [numbered("container", named)] if named else []
    if not setters:
        return None
    return Finding("runAsUser=0", f"{' and '.join(setters)} must not set runAsUser=0")


def outside_user_namespaces(
    check: Callable[[Metadata, Spec], Finding | None], metadata: Metadata, spec: Spec
) -> Finding | None:
    return None if has_user_namespace(spec) else check(metadata, spec)


def run_as_non_root_35(metadata: Metadata, spec: Spec) -> Finding | None:
    return outside_user_namespaces(run_as_non_root, metadata, spec)


def run_as_user_35(metadata: Metadata, spec: Spec) -> Finding | None:
    return outside_user_namespaces(run_as_user, metadata, spec)


def seccomp(metadata: Metadata, spec: Spec) -> Finding | None:
    explicit = seccomp_profile(metadata, spec)
    if explicit is not None:
        return explicit
    if security(spec).get("seccompProfile") is not None:
        return None
    silent = _silent(spec, "seccompProfile")
    if not silent:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Finding("seccompProfile", f"pod or {numbered('container', silent)} {wanted}")


def seccomp_25(metadata: Metadata, spec: Spec) -> Finding | None:
    return None if is_windows(spec) else seccomp(metadata, spec)
