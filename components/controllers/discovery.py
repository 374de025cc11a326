"""All resources an API server has, for controllers that work on any of them
(https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api)."""

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
    """verbs by resource, in the server's preferred version; failed: group versions that did not answer."""

    verbs: dict[Resource, frozenset[str]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    def having(self, *verbs: str) -> list[Resource]:
        return [resource for resource, able in self.verbs.items() if able.issuperset(verbs)]


async def discover(client: Client) -> Discovered:
    """Raises ApiError when not even the list of groups can be had."""
    groups = await _get(client, "/apis")
    versions = ["v1"] + [item["preferredVersion"]["groupVersion"] for item in groups.get("groups") or []]
    verbs: dict[Resource, frozenset[str]] = {}
    failed: list[str] = []
    for version in versions:
        try:
            listed = await _get(client, f"/apis/{version}" if "/" in version else f"/api/{version}")
        except ApiError as error:
            log.warning("discovery of %s: %s", version, error)
            failed.append(version)
            continue
        for item in listed.get("resources") or []:
            if "/" not in item["name"]:
                verbs[_resource(version, item)] = frozenset(item.get("verbs") or ())
    return Discovered(verbs, tuple(failed))


def _resource(group_version: str, item: dict[str, Any]) -> Resource:
    group, _, version = group_version.rpartition("/")
    return Resource(group, version, item["name"], item["kind"], bool(item["namespaced"]))


async def _get(client: Client, path: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await client.request("GET", path))
    return body
