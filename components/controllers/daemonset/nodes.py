"""Decides on which nodes a DaemonSet's pods run, and builds the pod of one node."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.controllers.podtemplate import CONTROLLER_REVISION_HASH, pod_from_template
from kubewire.components.kubeapi.nodeaffinity import pod_admits_node
from kubewire.components.kubeapi.taints import NO_EXECUTE, NO_SCHEDULE, untolerated

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        DaemonSet,
        Node,
        NodeSelectorTerm,
        Pod,
        PodSpec,
        Toleration,
    )

TEMPLATE_GENERATION = "pod-template-generation"
_NODE = "node.kubernetes.io"
_TOLERATED = (
    (f"{_NODE}/not-ready", NO_EXECUTE),
    (f"{_NODE}/unreachable", NO_EXECUTE),
    (f"{_NODE}/disk-pressure", NO_SCHEDULE),
    (f"{_NODE}/memory-pressure", NO_SCHEDULE),
    (f"{_NODE}/pid-pressure", NO_SCHEDULE),
    (f"{_NODE}/unschedulable", NO_SCHEDULE),
)


@dataclass(frozen=True)
class Verdict:
    """run: a pod should run on the node. stay: a pod that already runs there may remain."""

    run: bool
    stay: bool


def tolerations(spec: PodSpec) -> list[Toleration]:
    """The template's tolerations and those for node problems (AddOrUpdateDaemonPodTolerations)."""
    wanted = [*_TOLERATED]
    if spec.get("hostNetwork"):
        wanted.append((f"{_NODE}/network-unavailable", NO_SCHEDULE))
    added: list[Toleration] = [
        {"key": key, "operator": "Exists", "effect": effect} for key, effect in wanted
    ]
    keep = [item for item in spec.get("tolerations") or [] if item not in added]
    return keep + added


def verdict(daemonset: DaemonSet, node: Node) -> Verdict:
    """Checks one node against the template's nodeName, node affinity and tolerations.

    This is upstream's NodeShouldRunDaemonPod.
    """
    spec = daemonset["spec"]["template"]["spec"]
    if spec.get("nodeName") not in (None, "", node["metadata"]["name"]):
        return Verdict(False, False)
    if not pod_admits_node(spec, node):
        return Verdict(False, False)
    taints = node["spec"].get("taints") or [] if node.get("spec") else []
    tolerated = tolerations(spec)
    if untolerated(taints, tolerated, (NO_EXECUTE,)) is not None:
        return Verdict(False, False)
    return Verdict(untolerated(taints, tolerated, (NO_SCHEDULE,)) is None, True)


def node_of(pod: Pod) -> str:
    """The node on which the pod runs, or to which its node affinity binds it."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            is_name = field["key"] == "metadata.name" and field["operator"] == "In"
            if is_name and len(field["values"]) == 1:
                return str(field["values"][0])
    return ""


def new_pod(daemonset: DaemonSet, node: str, digest: str) -> Pod:
    """Builds the pod for one node.

    The scheduler binds it: an affinity to the node's name replaces the required node affinity.
    """
    pod = pod_from_template(daemonset, daemonset["spec"]["template"])
    generation = str(daemonset["metadata"].get("generation", 0))
    pod["metadata"]["labels"] |= {CONTROLLER_REVISION_HASH: digest, TEMPLATE_GENERATION: generation}
    pod["spec"]["tolerations"] = tolerations(pod["spec"])
    affinity = copy.deepcopy(pod["spec"].get("affinity") or {})
    terms: list[NodeSelectorTerm] = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    ]
    affinity.setdefault("nodeAffinity", {})["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": terms
    }
    pod["spec"]["affinity"] = affinity
    return pod
