"""The checks of level baseline: known ways from a pod into its node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubewire.components.apiserver.registry.admission.podsecurity.findings import (
    Finding,
    Metadata,
    Spec,
    containers,
    has_user_namespace,
    numbered,
    plural,
    quoted,
    security,
)

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_SAFE_PROFILES = ("RuntimeDefault", "Localhost")
_CAPABILITIES = frozenset(
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID "
    "SETPCAP SETUID SYS_CHROOT".split()
)
_SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))
_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
    )
)
_SYSCTLS_27 = _SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SYSCTLS_32 = _SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def apparmor_profile(metadata: Metadata, spec: Spec) -> Finding | None:
    setters, values = _bad_profiles(spec, "appArmorProfile")
    annotations = metadata.get("annotations") or {}
    bad = [
        f'{key}="{value}"'
        for key, value in sorted(annotations.items())
        if key.startswith(_APPARMOR) and not _is_safe_apparmor(value)
    ]
    if bad:
        values += bad
        setters.append(plural("annotation", bad))
    if not setters:
        return None
    text = f"must not set AppArmor profile type to {quoted(values)}"
    return Finding(plural("forbidden AppArmor profile", values), f"{' and '.join(setters)} {text}")


def _is_safe_apparmor(value: str) -> bool:
    return value in ("", "runtime/default") or value.startswith("localhost/")


def _bad_profiles(spec: Spec, field: str) -> tuple[list[str], list[str]]:
    """The pod and containers with a profile that switches protection off, and its types."""
    values: set[str] = set()

    def is_bad(holder: Spec) -> bool:
        profile = security(holder).get(field)
        kind = (profile or {}).get("type", "")
        if profile is None or kind in _SAFE_PROFILES:
            return False
        values.add(kind)
        return True

    setters = ["pod"] if is_bad(spec) else []
    bad = [item["name"] for item in containers(spec) if is_bad(item)]
    setters += [numbered("container", bad)] if bad else []
    return setters, sorted(values)


def capabilities(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = []
    forbidden: set[str] = set()
    for container in containers(spec):
        added = set((security(container).get("capabilities") or {}).get("add") or ())
        if added - _CAPABILITIES:
            bad.append(container["name"])
            forbidden |= added - _CAPABILITIES
    if not bad:
        return None
    text = f"must not include {quoted(sorted(forbidden))} in securityContext.capabilities.add"
    return Finding("non-default capabilities", f"{numbered('container', bad)} {text}")


def host_namespaces(metadata: Metadata, spec: Spec) -> Finding | None:
    shared = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Finding("host namespaces", ", ".join(shared)) if shared else None


def host_path_volumes(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = [item["name"] for item in spec.get("volumes") or () if item.get("hostPath") is not None]
    return Finding("hostPath volumes", numbered("volume", bad)) if bad else None


def host_ports(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = []
    ports: set[int] = set()
    for container in containers(spec):
        own = {port.get("hostPort") or 0 for port in container.get("ports") or ()} - {0}
        if own:
            bad.append(container["name"])
            ports |= own
    if not bad:
        return None
    shown = ", ".join(sorted(str(port) for port in ports))
    text = f"{numbered('container', bad)} {_use(bad)} {plural('hostPort', ports)} {shown}"
    return Finding(plural("hostPort", ports), text)


def _use(items: Iterable[str]) -> str:
    return "uses" if len(list(items)) == 1 else "use"


def host_probes(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = []
    hosts: set[str] = set()
    for container in containers(spec):
        lifecycle = container.get("lifecycle") or {}
        handlers = [container.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup")]
        handlers += [lifecycle.get("postStart"), lifecycle.get("preStop")]
        own = {host for handler in handlers for host in _handler_hosts(handler or {})}
        if own:
            bad.append(container["name"])
            hosts |= own
    if not bad:
        return None
    bad = sorted(set(bad))
    text = f"{_use(bad)} {plural('probe or lifecycle host', hosts)} {quoted(sorted(hosts))}"
    return Finding("probe or lifecycle host", f"{numbered('container', bad)} {text}")


def _handler_hosts(handler: Mapping[str, Any]) -> list[str]:
    hosts = [(handler.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")]
    return [host for host in hosts if host]


def privileged(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = [item["name"] for item in containers(spec) if security(item).get("privileged")]
    if not bad:
        return None
    text = "must not set securityContext.privileged=true"
    return Finding("privileged", f"{numbered('container', bad)} {text}")


def proc_mount(metadata: Metadata, spec: Spec) -> Finding | None:
    bad = []
    kinds: set[str] = set()
    for container in containers(spec):
        kind = security(container).get("procMount")
        if kind not in (None, "Default"):
            bad.append(container["name"])
            kinds.add(kind)
    if not bad:
        return None
    text = f"must not set securityContext.procMount to {quoted(sorted(kinds))}"
    return Finding("procMount", f"{numbered('container', bad)} {text}")


def proc_mount_35(metadata: Metadata, spec: Spec) -> Finding | None:
    return None if has_user_namespace(spec) else proc_mount(metadata, spec)


def selinux_options(metadata: Metadata, spec: Spec) -> Finding | None:
    return _selinux(spec, _SELINUX_TYPES)


def selinux_options_31(metadata: Metadata, spec: Spec) -> Finding | None:
    return _selinux(spec, _SELINUX_TYPES | {"container_engine_t"})


def _selinux(spec: Spec, allowed: frozenset[str]) -> Finding | None:
    options = [
        (name, security(holder).get("seLinuxOptions") or {})
        for name, holder in [("", spec), *((item["name"], item) for item in containers(spec))]
    ]
    bad = [
        (name, given)
        for name, given in options
        if given.get("type", "") not in allowed or given.get("user") or given.get("role")
    ]
    if not bad:
        return None
    setters = ["pod"] if any(not name for name, _ in bad) else []
    named = [name for name, _ in bad if name]
    setters += [numbered("container", named)] if named else []
    types = sorted({given.get("type", "") for _, given in bad} - allowed)
    faults = [numbered("type", types)] if types else []
    faults += [
        f"{field} may not be set"
        for field in ("user", "role")
        if any(given.get(field) for _, given in bad)
    ]
    text = f"set forbidden securityContext.seLinuxOptions: {'; '.join(faults)}"
    return Finding("seLinuxOptions", f"{' and '.join(setters)} {text}")


def seccomp_annotations(metadata: Metadata, spec: Spec) -> Finding | None:
    annotations = metadata.get("annotations") or {}
    keys = [_SECCOMP, *(_SECCOMP_CONTAINER + item["name"] for item in containers(spec))]
    bad = sorted(
        f'{key}="{annotations[key]}"'
        for key in keys
        if key in annotations and not _is_safe_seccomp(annotations[key])
    )
    if not bad:
        return None
    return Finding("seccompProfile", f"forbidden {plural('annotation', bad)} {', '.join(bad)}")


def _is_safe_seccomp(value: str) -> bool:
    return value in ("runtime/default", "docker/default") or value.startswith("localhost/")


def seccomp_profile(metadata: Metadata, spec: Spec) -> Finding | None:
    setters, values = _bad_profiles(spec, "seccompProfile")
    if not setters:
        return None
    text = f"must not set securityContext.seccompProfile.type to {quoted(values)}"
    return Finding("seccompProfile", f"{' and '.join(setters)} {text}")


def sysctls(metadata: Metadata, spec: Spec) -> Finding | None:
    return _sysctls(spec, _SYSCTLS)


def sysctls_27(metadata: Metadata, spec: Spec) -> Finding | None:
    return _sysctls(spec, _SYSCTLS_27)


def sysctls_29(metadata: Metadata, spec: Spec) -> Finding | None:
    return _sysctls(spec, _SYSCTLS_29)


def sysctls_32(metadata: Metadata, spec: Spec) -> Finding | None:
    return _sysctls(spec, _SYSCTLS_32)


def _sysctls(spec: Spec, allowed: frozenset[str]) -> Finding | None:
    names = [item.get("name", "") for item in security(spec).get("sysctls") or ()]
    bad = [name for name in names if name not in allowed]
    return Finding("forbidden sysctls", ", ".join(bad)) if bad else None


def windows_host_process(metadata: Metadata, spec: Spec) -> Finding | None:
    def is_bad(holder: Spec) -> bool:
        return bool((security(holder).get("windowsOptions") or {}).get("hostProcess"))

    setters = ["pod"] if is_bad(spec) else []
    bad = [item["name"] for item in containers(spec) if is_bad(item)]
    setters += [numbered("container", bad)] if bad else []
    if not setters:
        return None
    text = "must not set securityContext.windowsOptions.hostProcess=true"
    return Finding("hostProcess", f"{' and '.join(setters)} {text}")
