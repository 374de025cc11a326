"""Checks kernel features that only some lab files need and not every kernel has: IPv6 (absent with
the boot parameter ipv6.disable=1), IP-in-IP, ESP, IPVS."""

from __future__ import annotations

from collections.abc import Callable

from kubewire.lab.errors import UsageError
from kubewire.lab.needs.doctor import missing_feature
from kubewire.scenarios.engine.file.spec import LabSpec


def ensure(spec: LabSpec, missing: Callable[[str], str] = missing_feature) -> None:
    """Raise UsageError, which names the key of the lab file, if the kernel lacks a feature."""
    for key, value, features in (
        ("topology", "the properties of its links", spec.topology.requires),
        ("network.ipFamily", spec.network.ipFamily, spec.network.requires),
        ("cni.backend", spec.cni.backend, spec.cni.requires),
        ("policy.engine", spec.policy_engine.name, spec.policy_choice.backend.requires),
        ("kubeProxy.mode", spec.kubeProxy.mode, spec.kubeProxy.requires),
    ):
        if reasons := [reason for reason in map(missing, features) if reason]:
            raise UsageError(
                f"{key}: {value} cannot be used here: {', '.join(reasons)}; see kubewire doctor",
            )
