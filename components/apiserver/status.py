"""metav1.Status in upstream's form: the constructors of apimachinery's api/errors, with their
texts (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject


def qualified(group: str, plural: str) -> str:
    """GroupResource.String(): pods, deployments.apps."""
    return f"{plural}.{group}" if group else plural


def status(code: int, reason: str, message: str, details: KubeObject | None = None) -> KubeObject:
    """A failure.

    An empty reason is omitted, as metav1.StatusReasonUnknown is. Empty details are not, because
    clients read them.
    """
    body: KubeObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


class StatusError(Exception):
    """A failure Status to answer with; headers such as Retry-After go into the HTTP response."""

    def __init__(self, body: KubeObject, headers: dict[str, str] | None = None) -> None:
        super().__init__(body["message"])
        self.body = body
        self.headers = headers or {}

    @property
    def code(self) -> int:
        return int(self.body["code"])

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))


def _details(group: str, plural: str, name: str, **more: Any) -> KubeObject:
    details: KubeObject = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if plural:
        details["kind"] = plural
    return details | more


def not_found(group: str, plural: str, name: str) -> StatusError:
    message = f'{qualified(group, plural)} "{name}" not found'
    return StatusError(status(404, "NotFound", message, _details(group, plural, name)))


def no_such_path() -> StatusError:
    """The generic API server's answer for a path without a handler."""
    return StatusError(
        status(404, "NotFound", "the server could not find the requested resource", {}),
    )


def already_exists(group: str, plural: str, name: str) -> StatusError:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return StatusError(status(409, "AlreadyExists", message, _details(group, plural, name)))


_REJECTED = "the server rejected our request due to an error in our request"
_APPLY_AGAIN = "please apply your changes to the latest version and try again"
MODIFIED_TEXT = f"the object has been modified; {_APPLY_AGAIN}"


def conflict(group: str, plural: str, name: str, why: str = MODIFIED_TEXT) -> StatusError:
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return StatusError(status(409, "Conflict", message, _details(group, plural, name)))


def forbidden(group: str, plural: str, name: str, why: str) -> StatusError:
    subject = f'{qualified(group, plural)} "{name}"' if name else qualified(group, plural)
    return StatusError(
        status(403, "Forbidden", f"{subject} is forbidden: {why}", _details(group, plural, name)),
    )


def forbidden_path(why: str) -> StatusError:
    """The 403 of a request that is not for a resource."""
    return StatusError(status(403, "Forbidden", f"forbidden: {why}", {}))


def bad_request(message: str) -> StatusError:
    return StatusError(status(400, "BadRequest", message))


def unauthorized() -> StatusError:
    return StatusError(
        status(401, "Unauthorized", "Unauthorized"),
        {"WWW-Authenticate": 'Basic realm="kubernetes"'},
    )


def method_not_allowed() -> StatusError:
    """The answer for a verb without a route (errors.NewGenericServerResponse)."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(status(405, "MethodNotAllowed", message, {}))


def not_acceptable(accepted: Sequence[str]) -> StatusError:
    message = f"only the following media types are accepted: {', '.join(accepted)}"
    return StatusError(status(406, "NotAcceptable", message))


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    types = ", ".join(accepted)
    message = "the body of the request was in an unknown format - accepted media types include"
    message = f"{message}: {types}"
    return StatusError(status(415, "UnsupportedMediaType", message))


def too_large(message: str) -> StatusError:
    return StatusError(status(413, "RequestEntityTooLarge", message))


def expired(message: str) -> StatusError:
    return StatusError(status(410, "Expired", message))


def too_large_resource_version(asked: int, current: int) -> StatusError:
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    details: KubeObject = {"causes": causes, "retryAfterSeconds": 1}
    return StatusError(status(504, "Timeout", message, details), {"Retry-After": "1"})


def too_many_requests(
    message: str,
    retry_after: int,
    causes: Sequence[KubeObject] = (),
) -> StatusError:
    details: KubeObject = {"causes": list(causes)} if causes else {}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return StatusError(status(429, "TooManyRequests", message, details), headers)


def version_on_create() -> StatusError:
    """storage.ErrResourceVersionSetOnCreate, a plain error in Go, and so a 500 without a reason."""
    return StatusError(
        status(500, "", "resourceVersion should not be set on objects to be created"),
    )


def internal_error(message: str) -> StatusError:
    text = f"Internal error occurred: {message}"
    return StatusError(status(500, "InternalError", text, {"causes": [{"message": message}]}))


def backend_response(code: int, said: str, subject: str) -> StatusError:
    """The answer when a backend's answer is not a Status (errors.NewGenericServerResponse).

    subject is the plural and the name.
    """
    causes = [{"reason": "UnexpectedServerResponse", "message": said}]
    if code == 404:
        reason = "NotFound"
        message = "the server could not find the requested resource"
    elif code >= 500:
        text = f'an error on the server ("{said}") has prevented the request from succeeding'
        reason = "InternalError"
        message = text
    else:
        text = f"the server responded with the status code {code}"
        text += " but did not return more information"
        reason, message = ("Invalid", _REJECTED) if code == 422 else ("", text)
    return StatusError(status(code, reason, f"{message} ( {subject})", {"causes": causes}))


def service_unavailable(message: str) -> StatusError:
    return StatusError(status(503, "ServiceUnavailable", message))


#: The most errors in an answer. Upstream lists all of them, which for a hundred thousand errors
#: takes longer than the validation.
MOST_ERRORS = 1000
#: No error is added after this many characters. Each has its value, which may be as long as the
#: body.
_MOST_TEXT = 1024 * 1024


def _listed(errors: Sequence[FieldError]) -> list[FieldError]:
    """The errors within the limits; the first one is always included."""
    listed: list[FieldError] = []
    size = 0
    for error in errors[:MOST_ERRORS]:
        if size > _MOST_TEXT:
            break
        size += len(error.message())
        listed.append(error)
    return listed


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> StatusError:
    """A 422 with a cause for each field error; several messages are joined as [a, b]."""
    errors = _listed(errors)
    texts = list(dict.fromkeys(error.message() for error in errors))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(group, kind)} "{name}" is invalid: {joined}'
    causes = [
        {
            "reason": error.cause_reason,
            "message": error.cause_message(),
            "field": error.field,
        }
        for error in errors
    ]
    return StatusError(status(422, "Invalid", message, _details(group, kind, name, causes=causes)))


def created() -> KubeObject:
    """The answer of a subresource that carries out what was posted, such as pods/binding."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    }


def success(group: str, plural: str, name: str, uid: str) -> KubeObject:
    """The answer to a DELETE that removed the object."""
    details = _details(group, plural, name, uid=uid)
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
