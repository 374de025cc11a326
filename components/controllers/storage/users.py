"""Which pods use a claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubewire.components.kubeapi.volumes import claim_names

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod


def claims_in_use(pod: Pod) -> tuple[str, ...]:
    """Indexes pods by NAMESPACE/CLAIM of their claims."""
    namespace = pod["metadata"].get("namespace", "")
    return tuple(f"{namespace}/{name}" for name in claim_names(pod))
