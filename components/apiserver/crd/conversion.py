"""Converts custom objects between versions by a webhook (apiserver/conversion of apiextensions).

The webhook gets a ConversionReview with objects and the wanted apiVersion. It may change everything
but the metadata, of which only labels and annotations are its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.owner import OwnerThread
from kubewire.components.apiserver.registry.admission.webhooks.client import (
    CallFailed,
    WebhookClient,
)
from kubewire.components.kubeapi.resources import KubeObject

_VERSIONS = ("v1", "v1beta1")
#: Upstream has no time-out of its own, and gives the whole request 34 seconds.
_SECONDS = 30


class _Failed(Exception):
    """The webhook gave no usable answer."""


@dataclass(frozen=True)
class WebhookConversion:
    """The conversion of one definition. It blocks, and so needs a thread that may wait."""

    spec: Mapping[str, Any]
    client: WebhookClient
    owner: OwnerThread

    def convert(self, objects: Sequence[KubeObject], api_version: str) -> list[KubeObject]:
        """The objects at a version, in the same order; raises 500."""
        others = [obj for obj in objects if obj.get("apiVersion") != api_version]
        if not others:
            return list(objects)
        if not self.owner.may_wait:
            # The server's own steps, such as deleting the objects of a definition, look at nothing
            # but metadata.
            return [obj | {"apiVersion": api_version} for obj in objects]
        converted = iter(self._asked(others, api_version))
        return [obj if obj.get("apiVersion") == api_version else next(converted) for obj in objects]

    def _asked(self, objects: list[KubeObject], api_version: str) -> list[KubeObject]:
        first = objects[0]
        group, _, version = first["apiVersion"].rpartition("/")
        what = f"conversion webhook for {group}/{version}, Kind={first.get('kind')}"
        try:
            return self._answer(objects, api_version)
        except CallFailed as error:
            raise status.internal_error(f"{what} failed: {error}") from error
        except _Failed as error:
            raise status.internal_error(f"{what} {error}") from error

    def _answer(self, objects: list[KubeObject], api_version: str) -> list[KubeObject]:
        webhook = self.spec["webhook"]
        listed = webhook.get("conversionReviewVersions") or ()
        version = next((item for item in listed if item in _VERSIONS), None)
        if version is None:
            raise _Failed("failed: no supported conversion review versions")
        uid = str(uuid.uuid4())
        request = {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": request,
        }
        body = self.owner.wait_for(self.client.post(webhook["clientConfig"], review, _SECONDS))
        answered = _objects(body, version, uid)
        if len(answered) != len(objects):
            raise _Failed(f"returned {len(answered)} objects, expected {len(objects)}")
        return [
            _checked(obj, converted, api_version, index)
            for index, (obj, converted) in enumerate(zip(objects, answered, strict=True))
        ]


def _objects(body: Any, version: str, uid: str) -> list[Any]:
    """The converted objects of a review; raises _Failed."""
    response = body.get("response") if isinstance(body, dict) else None
    if version == "v1" and isinstance(body, dict):
        have = (body.get("apiVersion", ""), body.get("kind", ""))
        wanted = ("apiextensions.k8s.io/v1", "ConversionReview")
        if have != wanted:
            text = "expected webhook response of {}, Kind={}, got {}, Kind={}"
            raise _Failed("failed: " + text.format(*wanted, *have))
    if not isinstance(response, dict):
        raise _Failed("failed: no response provided")
    if version == "v1" and response.get("uid") != uid:
        have_uid = response.get("uid", "")
        raise _Failed(f'failed: expected response.uid="{uid}", got "{have_uid}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        default = f"response.result.status was '{result.get('status', '')}', not 'Success'"
        raise _Failed(f"failed: {result.get('message') or default}")
    return response.get("convertedObjects") or []


def _checked(before: KubeObject, after: Any, api_version: str, index: int) -> KubeObject:
    what = f"returned invalid converted object at index {index}"
    if not isinstance(after, dict) or not isinstance(after.get("metadata"), dict):
        raise _Failed(f"returned invalid metadata in object at index {index}: missing metadata")
    if (have := after.get("apiVersion", "")) != api_version:
        text = f"invalid groupVersion (expected {api_version}, received {have})"
        raise _Failed(f"{what}: {text}")
    if after.get("kind") != before.get("kind"):
        text = f"invalid kind (expected {before.get('kind')}, received {after.get('kind')})"
        raise _Failed(f"{what}: {text}")
    for key, name in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        have, wanted = after["metadata"].get(key) or "", before["metadata"].get(key) or ""
        if have != wanted:
            raise _Failed(f"{what}: must have the same {name}: {wanted} != {have}")
    return {**after, "metadata": _metadata(before["metadata"], after["metadata"])}


def _metadata(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The old metadata with the new labels and annotations."""
    own = ("labels", "annotations")
    kept = {key: value for key, value in before.items() if key not in own}
    return kept | {key: after[key] for key in own if after.get(key)}
