"""Defaults of pods and pod templates (k8s.io/kubernetes/pkg/apis/core/v1/defaults.go).

Go omits some numbers when they are zero, such as a probe's periodSeconds or a hostPort, so here
too zero counts as absent for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject

_MODE = 0o644
_DEFAULT_MODE_SOURCES = ("secret", "configMap", "downwardAPI", "projected")


def default_pod(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    default_pod_spec(spec)
    for container in _containers(spec, "containers", "initContainers"):
        _requests_from_limits(container)
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        _host_ports(_containers(spec, "containers", "initContainers"))


def default_pod_template(template: KubeObject) -> None:
    """Defaults of a PodTemplateSpec.

    Requests, enableServiceLinks and (since 1.28) the host ports of the host's network are
    defaulted in the pod only.
    """
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: dict[str, Any]) -> None:
    for key, value in (
        ("dnsPolicy", "ClusterFirst"),
        ("restartPolicy", "Always"),
        ("schedulerName", "default-scheduler"),
    ):
        if not spec.get(key):
            spec[key] = value
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    _service_account(spec)
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for container in _containers(spec, "containers", "initContainers", "ephemeralContainers"):
        _container(container)


def _service_account(spec: dict[str, Any]) -> None:
    """Keeps serviceAccount, the old name, equal to serviceAccountName."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _containers(spec: dict[str, Any], *lists: str) -> Iterable[dict[str, Any]]:
    return [container for key in lists for container in spec.get(key) or ()]


def image_tag(image: str) -> str:
    """The tag of an image reference; `latest` without tag and digest, "" with only a digest."""
    name, at, _ = image.partition("@")
    last = name.rpartition("/")[2]
    _, colon, tag = last.partition(":")
    return tag if colon else ("" if at else "latest")


def pull_policy(image: str) -> str:
    return "Always" if image_tag(image) == "latest" else "IfNotPresent"


def _container(container: dict[str, Any]) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for env in container.get("env") or ():
        reference = (env.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            _field_reference(reference)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _probe(container[name])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _handler(handler)
    context = container.get("securityContext")
    if context is not None and context.get("procMount") == "":
        context["procMount"] = "Default"


def _probe(probe: dict[str, Any]) -> None:
    for key, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(key):
            probe[key] = value
    _handler(probe)


def _handler(handler: dict[str, Any]) -> None:
    http = handler.get("httpGet")
    if http is not None:
        if not http.get("path"):
            http["path"] = "/"
        if not http.get("scheme"):
            http["scheme"] = "HTTP"
    if handler.get("grpc") is not None:
        handler["grpc"].setdefault("service", "")


def _field_reference(reference: dict[str, Any]) -> None:
    if not reference.get("apiVersion"):
        reference["apiVersion"] = "v1"


def _volume(volume: dict[str, Any]) -> None:
    if not any(value is not None for key, value in volume.items() if key != "name"):
        volume["emptyDir"] = {}
    for key in _DEFAULT_MODE_SOURCES:
        if volume.get(key) is not None:
            volume[key].setdefault("defaultMode", _MODE)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    if volume.get("image") is not None and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = pull_policy(volume["image"].get("reference") or "")
    if volume.get("iscsi") is not None and not volume["iscsi"].get("iscsiInterface"):
        volume["iscsi"]["iscsiInterface"] = "default"
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if template is not None:
        template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        if item.get("fieldRef") is not None:
            _field_reference(item["fieldRef"])
    for source in (volume.get("projected") or {}).get("sources") or ():
        _projection(source)


def _projection(source: dict[str, Any]) -> None:
    if source.get("serviceAccountToken") is not None:
        source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    for item in (source.get("downwardAPI") or {}).get("items") or ():
        if item.get("fieldRef") is not None:
            _field_reference(item["fieldRef"])


def _requests_from_limits(container: dict[str, Any]) -> None:
    resources = container["resources"]
    limits = resources.get("limits")
    if limits:
        resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _host_ports(containers: Iterable[dict[str, Any]]) -> None:
    for container in containers:
        for port in container.get("ports") or ():
            if not port.get("hostPort") and "containerPort" in port:
                port["hostPort"] = port["containerPort"]
