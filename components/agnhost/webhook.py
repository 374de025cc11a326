"""agnhost webhook and crd-conversion-webhook: what upstream's tests of admission and conversion
deploy (webhook/ and crd-conversion-webhook/)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .flags import Flag, parse
from .golang import fatal, log
from .http import HttpServer, Request, Respond, Response, error, listen_tcp, text
from .loop import Loop
from .netexec import stop_on_sigterm

Object = dict[str, Any]
#: Makes the response to the request of an AdmissionReview.
Admit = Callable[[Object], Object]

_TLS_FLAGS = (
    Flag("tls-cert-file", "", "File containing the default x509 Certificate for HTTPS."),
    Flag(
        "tls-private-key-file",
        "",
        "File containing the default x509 private key matching --tls-cert-file.",
    ),
    Flag("port", 443, "Secure port that the webhook listens on"),
)
WEBHOOK_FLAGS = (
    *_TLS_FLAGS,
    Flag("sidecar-image", "", "Image to be used as the injected sidecar"),
)
_DELAY_SECONDS = 5.0
_FOREVER = "wait-forever"
_MARK = "webhook-e2e-test"


def _refused(**status: Any) -> Object:
    return {"allowed": False, "status": status}


def _patched(*operations: Object) -> Object:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def _labels(obj: Object) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def _always_allow(request: Object) -> Object:
    return {"allowed": True, "status": {"message": "this webhook allows all requests"}}


def _always_deny(request: Object) -> Object:
    return _refused(message="this webhook denies all requests")


def _add_label(request: Object) -> Object:
    metadata = request["object"].get("metadata") or {}
    if "labels" not in metadata:
        return _patched({"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}})
    known = metadata["labels"].get("added-label")
    if known == "yes":
        return {"allowed": True}
    operation = "add" if known is None else "replace"
    return _patched({"op": operation, "path": "/metadata/labels/added-label", "value": "yes"})


def _pods(request: Object) -> Object:
    pod = request["object"]
    said = []
    if _labels(pod).get(_MARK) == "webhook-disallow":
        said.append("the pod contains unwanted label;")
    for container in pod["spec"].get("containers") or ():
        if "webhook-disallow" in container.get("name", ""):
            said.append("the pod contains unwanted container name;")
    return _refused(message=" ".join(said)) if said else {"allowed": True}


def _attaching(request: Object) -> Object:
    options = request.get("object") or {}
    is_target = request.get("name") == "to-be-attached-pod"
    if not (is_target and options.get("stdin") and options.get("container") == "container1"):
        return {"allowed": True}
    return _refused(message="attaching to pod 'to-be-attached-pod' is not allowed")


def _has(containers: Any, name: str) -> bool:
    return any(container.get("name") == name for container in containers or ())


def _mutating_pods(request: Object) -> Object:
    pod = request["object"]
    name = "webhook-added-init-container"
    is_target = (pod.get("metadata") or {}).get("name") == "webhook-to-be-mutated"
    if not is_target or _has(pod["spec"].get("initContainers"), name):
        return {"allowed": True}
    container = {"image": "webhook-added-image", "name": name, "resources": {}}
    return _patched({"op": "add", "path": "/spec/initContainers", "value": [container]})


def _sidecar(request: Object, image: str) -> Object:
    if not image:
        text = "No image specified by the sidecar-image parameter"
        return _refused(status="Failure", message=text, code=500)
    name = "webhook-added-sidecar"
    if _has(request["object"]["spec"].get("containers"), name):
        return {"allowed": True}
    container = {"image": image, "name": name, "resources": {}}
    return _patched({"op": "add", "path": "/spec/containers/-", "value": container})


def _data(request: Object, kind: str, unwanted: str) -> Object:
    deletes = request.get("operation") == "DELETE"
    obj = request["oldObject" if deletes else "object"] or {}
    value = (obj.get("data") or {}).get(_MARK)
    if value == "webhook-disallow" and not deletes:
        return _refused(reason=f"the {kind} contains unwanted {unwanted}")
    if value == "webhook-nondeletable" and deletes:
        why = "because it contains unwanted key and value"
        return _refused(reason=f"the {kind} cannot be deleted {why}")
    return {"allowed": True}


def _mutating_data(request: Object) -> Object:
    data = request["object"].get("data") or {}
    stage = 2 if data.get("mutation-stage-1") == "yes" else 1
    if stage == 1 and data.get("mutation-start") != "yes":
        return {"allowed": True}
    return _patched({"op": "add", "path": f"/data/mutation-stage-{stage}", "value": "yes"})


def _crd(request: Object) -> Object:
    if _labels(request["object"]).get(_MARK) == "webhook-disallow":
        return _refused(message="the crd contains unwanted label")
    return {"allowed": True}


def admissions(sidecar_image: str = "") -> dict[str, Admit]:
    """What each path answers."""
    return {
        "/always-allow-delay-5s": _always_allow,
        "/always-deny": _always_deny,
        "/add-label": _add_label,
        "/pods": _pods,
        "/pods/attach": _attaching,
        "/mutating-pods": _mutating_pods,
        "/mutating-pods-sidecar": partial(_sidecar, image=sidecar_image),
        "/configmaps": partial(_data, kind="configmap", unwanted="key and value"),
        "/mutating-configmaps": _mutating_data,
        "/custom-resource": partial(_data, kind="custom resource", unwanted="data"),
        "/mutating-custom-resource": _mutating_data,
        "/crd": _crd,
    }


def converted(obj: Object, version: str) -> Object:
    """An object of stable.example.com at another version; raises ValueError with upstream's text.

    v1 has the field hostPort, and v2 has host and port.
    """
    before = obj.get("apiVersion", "")
    if version == before:
        why = "conversion from a version to itself should not call the webhook"
        raise ValueError(f"{why}: {version}")
    result = {**obj, "apiVersion": version}
    match before, version:
        case "stable.example.com/v1", "stable.example.com/v2":
            if "hostPort" in result:
                parts = result.pop("hostPort").split(":")
                if len(parts) != 2:
                    raise ValueError(f"invalid hostPort value `{obj['hostPort']}`")
                result["host"], result["port"] = parts
        case "stable.example.com/v2", "stable.example.com/v1":
            if "host" in result or "port" in result:
                host, port = result.pop("host", ""), result.pop("port", "")
                result["hostPort"] = f"{host}:{port}"
        case "stable.example.com/v1" | "stable.example.com/v2", _:
            raise ValueError(f'unexpected conversion version "{version}"')
        case _:
            raise ValueError(f'unexpected conversion version "{before}"')
    return result


def conversion(request: Object) -> Object:
    """The response to the request of a ConversionReview."""
    try:
        objects = [converted(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
    except ValueError as problem:
        return {"result": {"status": "Failure", "message": str(problem)}}
    return {"convertedObjects": objects, "result": {"status": "Success"}}


def webhook(argv: list[str]) -> int:
    """Serves admission reviews until SIGTERM."""
    values, _ = parse("webhook", WEBHOOK_FLAGS, argv)
    loop = Loop()
    paths = admissions(str(values["sidecar-image"]))

    def handle(request: Request, respond: Respond) -> None:
        admit = paths.get(request.path)
        if request.path == "/readyz" or admit is None:
            respond(_plain(request.path))
            return
        review = json.loads(request.body)
        asked = review["request"]
        if request.path == "/pods" and _labels(asked["object"]).get(_MARK) == _FOREVER:
            log("the pod response should not be sent;")
            return
        answer = partial(respond, _review(review, admit(asked)))
        if request.path == "/always-allow-delay-5s":
            log("always-allow-with-delay sleeping for 5 seconds")
            loop.later(_DELAY_SECONDS, answer)
        else:
            answer()

    return _serve(loop, values, handle)


def crd_conversion_webhook(argv: list[str]) -> int:
    """Serves conversion reviews until SIGTERM."""
    values, _ = parse("crd-conversion-webhook", _TLS_FLAGS, argv)

    def handle(request: Request, respond: Respond) -> None:
        if request.path != "/crdconvert":
            respond(_plain(request.path))
            return
        review = json.loads(request.body)
        respond(_review(review, conversion(review["request"])))

    return _serve(Loop(), values, handle)


def _plain(path: str) -> Response:
    return text("ok") if path == "/readyz" else error("404 page not found", 404)


def _review(review: Object, response: Object) -> Response:
    body = {
        "kind": review["kind"],
        "apiVersion": review["apiVersion"],
        "response": {"uid": review["request"]["uid"], **response},
    }
    return Response(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _serve(
    loop: Loop, values: Mapping[str, Any], handle: Callable[[Request, Respond], None]
) -> int:
    import ssl

    stop_on_sigterm(loop, 2)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    port = int(values["port"])
    try:
        tls.load_cert_chain(values["tls-cert-file"], values["tls-private-key-file"])
        HttpServer(loop, listen_tcp(port), handle, tls)
    except OSError as problem:
        raise fatal(f"cannot serve: {problem}") from None
    log(f"serving on :{port}")
    loop.run()
    return 0
