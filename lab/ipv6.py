"""IPv6 where a kernel has it: booted with ipv6.disable=1, or without NAT in ip6tables, there is no such lab."""

from __future__ import annotations

from collections.abc import Callable

from lab.doctor import missing_feature
from lab.errors import UsageError
from scenarios.engine.spec import LabSpec


def ensure(spec: LabSpec, missing: Callable[[str], str] = missing_feature) -> None:
    """Raises UsageError for a lab with IPv6 ranges when the kernel cannot."""
    if reasons := [reason for reason in map(missing, spec.network.requires) if reason]:
        raise UsageError(
            f"network.ipFamily: {spec.network.ipFamily} cannot be used here: {', '.join(reasons)}; see kubewire doctor"
        )
