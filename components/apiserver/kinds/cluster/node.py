"""Node (core/v1): k8s.io/kubernetes/pkg/registry/core/node/strategy.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.addresses import family, validate_legacy_cidr
from kubewire.components.apiserver.kinds.fielderrors import duplicate, forbidden, invalid
from kubewire.components.apiserver.kinds.pods.pod_validation import validate_taints
from kubewire.components.apiserver.kinds.spec import (
    CONNECT_VERBS,
    Column,
    FieldError,
    KindSpec,
    Subresource,
)
from kubewire.components.apiserver.kinds.strategy import keep_status
from kubewire.components.kubeapi.resources import NODES, KubeObject

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"

COLUMNS = (
    cells.NAME,
    Column("Status", "string", "", "The status of the node"),
    Column("Roles", "string", "", "The roles of the node"),
    cells.AGE,
    Column("Version", "string", "", "The kubelet's version."),
    Column("Internal-IP", "string", "", "The node's first address inside the cluster.", 1),
    Column("External-IP", "string", "", "The node's first address outside the cluster.", 1),
    Column("OS-Image", "string", "", "The operating system the node runs.", 1),
    Column("Kernel-Version", "string", "", "The kernel the node runs.", 1),
    Column("Container-Runtime", "string", "", "The container runtime and its version.", 1),
)


def default(node: KubeObject) -> None:
    node.setdefault("spec", {})
    status = node.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])
    _pod_cidrs(node["spec"])


def _pod_cidrs(spec: dict[str, Any]) -> None:
    """Makes podCIDR the first of podCIDRs; setting either sets both."""
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs"):
        spec["podCIDR"] = spec["podCIDRs"][0]


def prepare_status_update(new: KubeObject, old: KubeObject) -> None:
    new["spec"] = old.get("spec") or {}


def validate_create(node: KubeObject) -> list[FieldError]:
    spec = node.get("spec") or {}
    # Upstream's errors do name this path, although the taints are in the spec.
    errors = validate_taints(spec.get("taints") or (), "metadata.taints")
    return errors + _validate_pod_cidrs(spec.get("podCIDRs") or [])


def _validate_pod_cidrs(cidrs: list[str]) -> list[FieldError]:
    path = "spec.podCIDRs"
    errors: list[FieldError] = []
    for index, cidr in enumerate(cidrs):
        errors += validate_legacy_cidr(f"{path}[{index}]", cidr)
    if len(cidrs) < 2:
        return errors
    if len(cidrs) > 2 or len({family(cidr.partition("/")[0]) for cidr in cidrs}) < 2:
        errors.append(invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
    for index, cidr in enumerate(cidrs):
        if cidr in cidrs[:index]:
            errors.append(duplicate(f"{path}[{index}]", cidr))
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    """Forbids changes of the node's ranges and of its provider's ID once they are set."""
    after = new.get("spec") or {}
    before = old.get("spec") or {}
    errors = validate_status_update(new, old)
    if before.get("podCIDRs") and before["podCIDRs"] != after.get("podCIDRs"):
        text = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden("spec.podCIDRs", text))
    if before.get("providerID") and before["providerID"] != after.get("providerID"):
        text = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden("spec.providerID", text))
    return errors + validate_create(new)


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    addresses = cells.at(new, "status", "addresses") or []
    return [
        duplicate(f"status.addresses[{index}]", address)
        for index, address in enumerate(addresses)
        if address in addresses[:index]
    ]


def row(node: KubeObject, now: datetime) -> list[Any]:
    info = cells.at(node, "status", "nodeInfo") or {}
    return [
        cells.name(node),
        _status(node),
        ",".join(_roles(node)) or cells.NONE,
        cells.age(node, now),
        info.get("kubeletVersion", ""),
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or cells.UNKNOWN,
        info.get("kernelVersion") or cells.UNKNOWN,
        info.get("containerRuntimeVersion") or cells.UNKNOWN,
    ]


def _status(node: KubeObject) -> str:
    conditions = cells.at(node, "status", "conditions") or ()
    ready = [item for item in conditions if item.get("type") == "Ready"]
    text = ("Ready" if ready[-1].get("status") == "True" else "NotReady") if ready else "Unknown"
    return text + (",SchedulingDisabled" if cells.at(node, "spec", "unschedulable") else "")


def _roles(node: KubeObject) -> list[str]:
    labels = node["metadata"].get("labels") or {}
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    return sorted((roles | {labels.get(_ROLE_LABEL, "")}) - {""})


def _address(node: KubeObject, kind: str) -> str:
    addresses = cells.at(node, "status", "addresses") or ()
    matching = (item.get("address", "") for item in addresses if item.get("type") == kind)
    return next(matching, cells.NONE)


def selectable_fields(node: KubeObject) -> dict[str, str]:
    return {"spec.unschedulable": "true" if cells.at(node, "spec", "unschedulable") else "false"}


KIND = KindSpec(
    resource=NODES,
    singular="node",
    more_subresources=(Subresource("proxy", "NodeProxyOptions", CONNECT_VERBS),),
    short_names=("no",),
    subresources=("status",),
    default=default,
    prepare_update=keep_status,
    prepare_status_update=prepare_status_update,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
