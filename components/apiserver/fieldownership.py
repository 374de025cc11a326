"""Field ownership for server-side apply (metadata.managedFields)."""

from __future__ import annotations

from dataclasses import dataclass

from components.apiserver.catalog import Served
from components.machinery.resources import KubeObject


@dataclass(frozen=True)
class OwnershipTracker:
    def on_update(
        self, served: Served, new: KubeObject, old: KubeObject, manager: str, subresource: str
    ) -> None:
        return None


def apply_patch(registry, served, namespace, name, patch, options, subresource, merge_key):  # type: ignore
    raise NotImplementedError
