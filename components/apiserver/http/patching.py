"""Turns the body of a PATCH into a transform of the object (endpoints/handlers/patch.go)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from kubewire.components.apiserver import bodies, status
from kubewire.components.apiserver.http.duplicatekeys import duplicate_keys
from kubewire.components.apiserver.http.negotiation import decode_json
from kubewire.components.apiserver.registry import patch as patches
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.strategicmerge import PatchFormatError, strategic_merge
from kubewire.components.kubeapi.client import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
)
from kubewire.components.kubeapi.mergepatch import merge_patch
from kubewire.components.kubeapi.resources import KubeObject

#: The function merge_key(group, version, kind, path) of the openapi package.
MergeKeyOf = Callable[[str, str, str, tuple[str, ...]], str | None]


def transform(
    served: Served, content_type: str, body: bytes, merge_key: MergeKeyOf
) -> tuple[Callable[[KubeObject], KubeObject], tuple[str, ...]]:
    """Returns the transform, and the texts of what fieldValidation reports about the patch itself.

    Raises 400 and 415. The transform raises 422 when the patch does not fit the object.
    """
    patch = decode_json(body)
    findings = duplicate_keys(body, patch)
    if content_type == JSON_PATCH:
        findings = tuple(f"json patch {text}" for text in findings)
    return _transform(served, content_type, patch, merge_key), findings


def _transform(
    served: Served, content_type: str, patch: Any, merge_key: MergeKeyOf
) -> Callable[[KubeObject], KubeObject]:
    if content_type == JSON_PATCH:
        return _json_patch(patch)
    if not isinstance(patch, dict):
        text = "json: cannot unmarshal into Go value of type map[string]interface {}"
        raise status.bad_request(f"error decoding patch: {text}")
    if content_type == MERGE_PATCH:
        return lambda obj: _checked(lambda: merge_patch(obj, patch))
    if content_type == STRATEGIC_MERGE_PATCH and not served.custom:

        def key_of(path: tuple[str, ...]) -> str | None:
            return merge_key(served.group, served.version, served.kind, path)

        return lambda obj: _checked(lambda: strategic_merge(obj, patch, key_of))
    raise status.unsupported_media_type(supported(served))


def shown_as(content_type: str, body: bytes) -> Callable[[KubeObject], str]:
    """What an error shows when the patched object cannot be decoded: the object as JSON, and of a
    strategic merge patch the patch itself as Go prints it.
    """
    if content_type == STRATEGIC_MERGE_PATCH:
        return lambda patched: go_text(decode_json(body))
    return lambda patched: orjson.dumps(patched, option=orjson.OPT_SORT_KEYS).decode()


def go_text(value: Any) -> str:
    """A value of JSON as Go's fmt prints it: map[a:1 b:[x y]]."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(go_text(item) for item in value)}]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json_patch(patch: Any) -> Callable[[KubeObject], KubeObject]:
    if not isinstance(patch, list):
        text = "json: cannot unmarshal into Go value of type jsonpatch.Patch"
        raise status.bad_request(f"error decoding patch: {text}")
    if len(patch) > patches.MAX_OPERATIONS:
        limit = patches.MAX_OPERATIONS
        text = f"The allowed maximum operations in a JSON patch is {limit}, got {len(patch)}"
        raise status.too_large(text)

    def patched(obj: KubeObject) -> KubeObject:
        result = _checked(lambda: patches.json_patch(obj, patch))
        try:
            bodies.check_depth(result)
        except bodies.TooDeep as error:
            raise status.bad_request(f"the patched document: {error}") from error
        return result

    return patched


def supported(served: Served) -> tuple[str, ...]:
    """The content types of patches that the resource accepts."""
    if served.custom:
        return (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)
    return (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)


def _checked(step: Callable[[], KubeObject]) -> KubeObject:
    try:
        patched = step()
    except PatchFormatError as error:
        raise status.bad_request(str(error)) from error
    except patches.PatchError as error:
        text = f"the server rejected our request due to an error in our request: {error}"
        raise status.StatusError(status.status(422, "Invalid", text, {})) from error
    if not isinstance(patched, dict):
        raise status.bad_request("the patched document is not an object")
    return patched
