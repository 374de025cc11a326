"""Which checks each level has in each release."""

from __future__ import annotations

from functools import lru_cache

from kubewire.components.apiserver.registry.admission.podsecurity import baseline, restricted
from kubewire.components.apiserver.registry.admission.podsecurity.findings import Check

#: Versions of a check, oldest first: the minor release from which on each is made.
_Versions = tuple[tuple[int, Check], ...]
#: In the order of the texts.
_BASELINE: dict[str, _Versions] = {
    "appArmorProfile": ((0, baseline.apparmor_profile),),
    "capabilities_baseline": ((0, baseline.capabilities),),
    "hostNamespaces": ((0, baseline.host_namespaces),),
    "hostPathVolumes": ((0, baseline.host_path_volumes),),
    "hostPorts": ((0, baseline.host_ports),),
    "hostProbesAndHostLifecycle": ((34, baseline.host_probes),),
    "privileged": ((0, baseline.privileged),),
    "procMount": ((0, baseline.proc_mount), (35, baseline.proc_mount_35)),
    "seLinuxOptions": ((0, baseline.selinux_options), (31, baseline.selinux_options_31)),
    "seccompProfile_baseline": ((0, baseline.seccomp_annotations), (19, baseline.seccomp_profile)),
    "sysctls": (
        (0, baseline.sysctls),
        (27, baseline.sysctls_27),
        (29, baseline.sysctls_29),
        (32, baseline.sysctls_32),
    ),
    "windowsHostProcess": ((0, baseline.windows_host_process),),
}
_RESTRICTED: dict[str, _Versions] = {
    "allowPrivilegeEscalation": (
        (8, restricted.privilege_escalation),
        (25, restricted.privilege_escalation_25),
    ),
    "capabilities_restricted": ((22, restricted.capabilities), (25, restricted.capabilities_25)),
    "procMount_restricted": ((35, baseline.proc_mount),),
    "restrictedVolumes": ((0, restricted.volume_types),),
    "runAsNonRoot": ((0, restricted.run_as_non_root), (35, restricted.run_as_non_root_35)),
    "runAsUser": ((23, restricted.run_as_user), (35, restricted.run_as_user_35)),
    "seccompProfile_restricted": ((19, restricted.seccomp), (25, restricted.seccomp_25)),
}
#: Checks of baseline that a stricter one replaces.
_REPLACED = {
    "capabilities_baseline": "capabilities_restricted",
    "hostPathVolumes": "restrictedVolumes",
    "procMount": "procMount_restricted",
    "seccompProfile_baseline": "seccompProfile_restricted",
}


@lru_cache(maxsize=256)
def checks(level: str, minor: int) -> tuple[Check, ...]:
    low = {name: check for name, versions in _BASELINE.items() if (check := _at(versions, minor))}
    if level == "baseline":
        return tuple(low.values())
    high = {name: check for name, rows in _RESTRICTED.items() if (check := _at(rows, minor))}
    kept = [check for name, check in low.items() if _REPLACED.get(name) not in high]
    return (*kept, *high.values())


def _at(versions: _Versions, minor: int) -> Check | None:
    known = [check for first, check in versions if first <= minor]
    return known[-1] if known else None
