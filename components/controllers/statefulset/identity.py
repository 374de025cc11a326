"""The stable identity of a StatefulSet's pods: ordinals, names, labels and pods of a revision."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kubewire.components.controllers.meta import labels_of
from kubewire.components.controllers.podtemplate import CONTROLLER_REVISION_HASH, pod_from_template
from kubewire.components.controllers.revisions import apply_revision
from kubewire.components.controllers.statefulset import claims

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ControllerRevision, Pod, StatefulSet

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_NAME = re.compile(r"(.*)-([0-9]+)")


def start_ordinal(statefulset: StatefulSet) -> int:
    return int((statefulset["spec"].get("ordinals") or {}).get("start") or 0)


def replicas_of(statefulset: StatefulSet) -> int:
    value = statefulset["spec"].get("replicas")
    return 1 if value is None else int(value)


def pod_name(statefulset: StatefulSet, ordinal: int) -> str:
    return f"{statefulset['metadata']['name']}-{ordinal}"


def ordinal_of(statefulset: StatefulSet, pod: Pod) -> int:
    """The number at the end of the pod's name; -1 when the pod does not belong to this set."""
    match = _NAME.fullmatch(pod["metadata"]["name"])
    if match is None or match[1] != statefulset["metadata"]["name"]:
        return -1
    return int(match[2])


def identity_labels(name: str, ordinal: int) -> dict[str, str]:
    return {POD_NAME: name, POD_INDEX: str(ordinal)}


def revision_of(pod: Pod) -> str:
    """The name of the ControllerRevision from which the pod was made."""
    return labels_of(pod).get(CONTROLLER_REVISION_HASH, "")


def new_pod(statefulset: StatefulSet, revision: ControllerRevision, ordinal: int) -> Pod:
    """Builds the pod of an ordinal.

    Its hostname is its name and its subdomain the governing Service, which gives it the DNS name
    web-0.nginx.NAMESPACE.svc.
    """
    at_revision = apply_revision(statefulset, revision)
    pod = pod_from_template(at_revision, at_revision["spec"]["template"])
    name = pod_name(statefulset, ordinal)
    del pod["metadata"]["generateName"]
    pod["metadata"]["name"] = name
    pod["metadata"]["labels"] |= {
        **identity_labels(name, ordinal),
        CONTROLLER_REVISION_HASH: revision["metadata"]["name"],
    }
    pod["spec"]["hostname"] = name
    if statefulset["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = statefulset["spec"]["serviceName"]
    if claims.templates(statefulset):
        given = pod["spec"].get("volumes") or []
        pod["spec"]["volumes"] = claims.volumes(statefulset, ordinal, given)
    return pod
