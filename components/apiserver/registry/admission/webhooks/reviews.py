"""AdmissionReview: the question to a webhook, and what its answer means
(admission/plugin/webhook/request and admission.k8s.io/v1).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from kubewire.components.apiserver import status
from kubewire.components.apiserver.status import StatusError
from kubewire.components.kubeapi.resources import KubeObject

#: The versions that we speak; a webhook lists those that it takes, the preferred one first.
VERSIONS = ("v1", "v1beta1")


class InvalidResponse(ValueError):
    """The webhook answered, but not as the protocol asks."""


@dataclass(frozen=True)
class Response:
    """A checked answer. patch has the operations of a JSON patch."""

    allowed: bool
    patch: tuple[Mapping[str, Any], ...] = ()
    patch_type: str = ""
    result: KubeObject | None = None
    warnings: tuple[str, ...] = ()


def review(version: str, request: KubeObject) -> KubeObject:
    """The AdmissionReview that asks about a request."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": f"admission.k8s.io/{version}",
        "request": request,
    }


def response(body: Any, version: str, uid: str, mutating: bool) -> Response:
    """Checks the answer to the review with this uid; raises InvalidResponse."""
    answer = body.get("response") if isinstance(body, dict) else None
    if not isinstance(answer, dict):
        raise InvalidResponse("webhook response was absent")
    if version == "v1":
        _check_identity(body, answer, uid)
    patch_type = answer.get("patchType")
    encoded = answer.get("patch") or ""
    if version == "v1":
        _check_patch(encoded, patch_type, mutating)
    elif encoded:
        patch_type = "JSONPatch"
    return Response(
        allowed=answer.get("allowed") is True,
        patch=_operations(encoded) if mutating else (),
        patch_type=patch_type or "",
        result=answer.get("status"),
        warnings=tuple(str(text) for text in answer.get("warnings") or ()),
    )


def _check_identity(body: KubeObject, answer: KubeObject, uid: str) -> None:
    if answer.get("uid", "") != uid:
        have = answer.get("uid", "")
        raise InvalidResponse(f'expected response.uid="{uid}", got "{have}"')
    kind = body.get("kind", "")
    api_version = body.get("apiVersion", "")
    if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview"):
        wanted = "admission.k8s.io/v1, Kind=AdmissionReview"
        raise InvalidResponse(
            f"expected webhook response of {wanted}, got {api_version}, Kind={kind}"
        )


def _check_patch(encoded: str, patch_type: str | None, mutating: bool) -> None:
    if not mutating:
        if encoded:
            raise InvalidResponse("validating webhook may not return response.patch")
        if patch_type is not None:
            raise InvalidResponse("validating webhook may not return response.patchType")
        return
    if encoded and patch_type is None:
        raise InvalidResponse("webhook returned response.patch but not response.patchType")
    if not encoded and patch_type is not None:
        raise InvalidResponse("webhook returned response.patchType but not response.patch")
    if patch_type == "":
        raise InvalidResponse('webhook returned invalid response.patchType of ""')


class UndecodablePatch(InvalidResponse):
    """response.patch is not a JSON patch in base64."""


def _operations(encoded: str) -> tuple[Mapping[str, Any], ...]:
    if not encoded:
        return ()
    try:
        operations = orjson.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise UndecodablePatch(str(error)) from error
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise UndecodablePatch(
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        )
    return tuple(operations)


def refusal(webhook: str, result: KubeObject | None) -> StatusError:
    """The Status of a request that a webhook does not allow; never a success (ToStatusErr)."""
    result = dict(result or {})
    code = result.get("code") or 0
    denied = f'admission webhook "{webhook}" denied the request'
    if message := result.get("message") or result.get("reason"):
        text = f"{denied}: {message}"
    else:
        text = f"{denied} without explanation"
    body = status.status(max(int(code), 400), result.get("reason") or "", text)
    if result.get("details") is not None:
        body["details"] = result["details"]
    if result.get("status") not in (None, "", "Success"):
        body["status"] = result["status"]
    return StatusError(body)


def no_dry_run(webhook: str) -> StatusError:
    return status.bad_request(f'admission webhook "{webhook}" does not support dry run')
