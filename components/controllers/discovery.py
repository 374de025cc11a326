"""Lists all resources of an API server, for controllers that work on any of them
(https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import Resource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Discovered:
    """verbs maps each resource, in its group's preferred version, to its verbs.

    failed names the group versions that could not be read.
    """

    verbs: dict[Resource[Any], frozenset[str]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    def having(self, *verbs: str) -> list[Resource[Any]]:
        """The resources that support all of these verbs."""
        return [resource for resource, able in self.verbs.items() if able.issuperset(verbs)]


async def discover(client: Client) -> Discovered:
    """Reads the discovery documents; raises ApiError when the list of groups cannot be read."""
    groups = await _get(client, "/apis")
    preferred = [item["preferredVersion"] for item in groups.get("groups") or []]
    versions = ["v1", *(version["groupVersion"] for version in preferred)]
    verbs: dict[Resource[Any], frozenset[str]] = {}
    failed: list[str] = []
    for version in versions:
        try:
            listed = await _get(client, f"/apis/{version}" if "/" in version else f"/api/{version}")
        except ApiError as error:
            log.warning("cannot discover the resources of %s: %s", version, error)
            failed.append(version)
            continue
        for item in listed.get("resources") or []:
            if "/" not in item["name"]:
                verbs[_resource(version, item)] = frozenset(item.get("verbs") or ())
    return Discovered(verbs, tuple(failed))


def _resource(group_version: str, item: dict[str, Any]) -> Resource[Any]:
    group, _, version = group_version.rpartition("/")
    return Resource(group, version, item["name"], item["kind"], bool(item["namespaced"]))


async def _get(client: Client, path: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await client.request("GET", path))
    return body
