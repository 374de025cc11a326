"""Pod (core/v1): k8s.io/kubernetes/pkg/registry/core/pod/strategy.go."""

from __future__ import annotations

from kubewire.components.apiserver.kinds.pods import pod_columns
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod
from kubewire.components.apiserver.kinds.pods.pod_update import (
    validate_status_update,
    validate_update,
)
from kubewire.components.apiserver.kinds.pods.pod_validation import validate_pod
from kubewire.components.apiserver.kinds.pods.qos import qos_class
from kubewire.components.apiserver.kinds.spec import CONNECT_VERBS, KindSpec, Subresource
from kubewire.components.kubeapi.resources import PODS, KubeObject


def prepare_create(pod: KubeObject) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod.get("spec") or {})}


def prepare_update(new: KubeObject, old: KubeObject) -> None:
    new["status"] = old.get("status") or {}


def prepare_status_update(new: KubeObject, old: KubeObject) -> None:
    """Changes only the status, and keeps podIP equal to the first of podIPs."""
    new["spec"] = old.get("spec") or {}
    new["metadata"].pop("deletionTimestamp", None)
    if "deletionTimestamp" in old["metadata"]:
        new["metadata"]["deletionTimestamp"] = old["metadata"]["deletionTimestamp"]
    status = new.setdefault("status", {})
    if status.get("podIPs"):
        status["podIP"] = status["podIPs"][0].get("ip", "")
    elif status.get("podIP"):
        status["podIPs"] = [{"ip": status["podIP"]}]
    if old.get("status", {}).get("qosClass") and not status.get("qosClass"):
        status["qosClass"] = old["status"]["qosClass"]


def selectable_fields(pod: KubeObject) -> dict[str, str]:
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    addresses = status.get("podIPs") or ()
    return {
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.restartPolicy": spec.get("restartPolicy", ""),
        "spec.schedulerName": spec.get("schedulerName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
        "status.phase": status.get("phase", ""),
        "status.podIP": addresses[0].get("ip", "") if addresses else status.get("podIP", ""),
        "status.nominatedNodeName": status.get("nominatedNodeName", ""),
    }


KIND = KindSpec(
    resource=PODS,
    singular="pod",
    generation=True,
    more_subresources=(
        Subresource("attach", "PodAttachOptions", ("create", "get")),
        Subresource("binding", "Binding", ("create",)),
        Subresource("ephemeralcontainers", "Pod", ("get", "patch", "update")),
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
        Subresource("log", "Pod", ("get",)),
        Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
        Subresource("proxy", "PodProxyOptions", CONNECT_VERBS),
    ),
    short_names=("po",),
    categories=("all",),
    subresources=("status",),
    default=default_pod,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    prepare_status_update=prepare_status_update,
    validate_create=validate_pod,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=pod_columns.COLUMNS,
    row=pod_columns.row,
    selectable_fields=selectable_fields,
)
