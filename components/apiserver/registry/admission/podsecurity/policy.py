"""The levels and versions of a policy, and which checks they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kubewire.components.apiserver.kinds.fielderrors import invalid
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.registry.admission.podsecurity import baseline, restricted
from kubewire.components.apiserver.registry.admission.podsecurity.findings import (
    Check,
    Finding,
    Metadata,
    Spec,
)

PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
LEVELS = ("privileged", "baseline", "restricted")
_NEWEST = 36
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")

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


@dataclass(frozen=True)
class Level:
    """A level with its version; minor is None for the latest."""

    name: str = "privileged"
    minor: int | None = None

    def __str__(self) -> str:
        return f"{self.name}:{'latest' if self.minor is None else f'v1.{self.minor}'}"

    def findings(self, metadata: Metadata, spec: Spec) -> list[Finding]:
        """What the level forbids about a pod."""
        minor = _NEWEST if self.minor is None else min(self.minor, _NEWEST)
        found = (check(metadata, spec) for check in _checks(self.name, minor))
        return [finding for finding in found if finding is not None]

    def is_stricter_than(self, other: Level) -> bool:
        return LEVELS.index(self.name) > LEVELS.index(other.name)


@lru_cache(maxsize=256)
def _checks(level: str, minor: int) -> tuple[Check, ...]:
    if level == "privileged":
        return ()
    low = {name: check for name, versions in _BASELINE.items() if (check := _at(versions, minor))}
    if level == "baseline":
        return tuple(low.values())
    high = {name: check for name, rows in _RESTRICTED.items() if (check := _at(rows, minor))}
    kept = [check for name, check in low.items() if _REPLACED.get(name) not in high]
    return (*kept, *high.values())


def _at(versions: _Versions, minor: int) -> Check | None:
    known = [check for first, check in versions if first <= minor]
    return known[-1] if known else None


@dataclass(frozen=True)
class Policy:
    """The levels that a namespace's labels name; without labels everything is allowed."""

    enforce: Level = Level()
    audit: Level = Level()
    warn: Level = Level()

    @property
    def is_idle(self) -> bool:
        return self == _IDLE

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Policy:
        """Reads the labels; an unknown level counts as restricted, as it does upstream."""
        labels = namespace["metadata"].get("labels") or {}
        if not any(key.startswith(PREFIX) for key in labels):
            return _IDLE
        enforce, audit, warn = (_level(labels, mode) for mode in MODES)
        return cls(enforce, audit, warn)


_IDLE = Policy()


def _level(labels: Mapping[str, str], mode: str) -> Level:
    name = labels.get(PREFIX + mode, "privileged")
    if name == "privileged":
        return Level()
    version = _VERSION.fullmatch(labels.get(f"{PREFIX}{mode}-version", "latest"))
    return Level(name if name in LEVELS else "restricted", int(version[1]) if version else None)


def label_errors(labels: Mapping[str, str]) -> list[FieldError]:
    """The errors of the labels of a namespace."""
    errors = []
    for mode in MODES:
        level = labels.get(PREFIX + mode)
        if level is not None and level not in LEVELS:
            text = f"must be one of {', '.join(LEVELS)}"
            errors.append(invalid(f"metadata.labels[{PREFIX}{mode}]", level, text))
        version = labels.get(f"{PREFIX}{mode}-version")
        if version is not None and version != "latest" and not _VERSION.fullmatch(version):
            text = 'must be "latest" or "v1.x"'
            errors.append(invalid(f"metadata.labels[{PREFIX}{mode}-version]", version, text))
    return errors
