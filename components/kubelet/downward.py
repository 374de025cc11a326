"""The downward API: fieldRef and resourceFieldRef, for environment variables and volumes
(https://kubernetes.io/docs/concepts/workloads/pods/downward-api/)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, Pod, ResourceFieldSelector

_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


class DownwardError(ValueError):
    """The downward API does not offer the field or resource."""


@dataclass(frozen=True)
class NodeFacts:
    """What a pod can learn about its node. allocatable: quantities ("2", "16384Ki")."""

    name: str
    host_ips: tuple[str, ...]
    allocatable: Mapping[str, str]


def field(pod: Pod, path: str, node: NodeFacts, pod_ips: tuple[str, ...]) -> str:
    """The value of a fieldRef. Raises DownwardError, with upstream's text, for an unknown path."""
    if match := _SUBSCRIPT.match(path):
        metadata = pod["metadata"]
        values = (
            metadata.get("labels") if match.group(1) == "labels" else metadata.get("annotations")
        )
        return str((values or {}).get(match.group(2), ""))
    plain = {
        "metadata.name": lambda: pods.name(pod),
        "metadata.namespace": lambda: pods.namespace(pod),
        "metadata.uid": lambda: pods.uid(pod),
        "metadata.labels": lambda: _map_text(pod["metadata"].get("labels")),
        "metadata.annotations": lambda: _map_text(pod["metadata"].get("annotations")),
        "spec.nodeName": lambda: node.name,
        "spec.serviceAccountName": lambda: str(pod["spec"].get("serviceAccountName", "default")),
        "status.hostIP": lambda: node.host_ips[0] if node.host_ips else "",
        "status.hostIPs": lambda: ",".join(node.host_ips),
        "status.podIP": lambda: pod_ips[0] if pod_ips else "",
        "status.podIPs": lambda: ",".join(pod_ips),
    }.get(path)
    if plain is None:
        raise DownwardError(f"unsupported fieldPath: {path}")
    return plain()


def _map_text(values: Mapping[str, str] | None) -> str:
    """Sorted lines key="value", with the value quoted as Go's %q does."""
    return "\n".join(f"{key}={_quote(value)}" for key, value in sorted((values or {}).items()))


_GO_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _quote(text: str) -> str:
    return '"' + "".join(_GO_ESCAPES.get(char, char) for char in text) + '"'


def resource_field(
    container: Container | None,
    reference: ResourceFieldSelector,
    node: NodeFacts,
) -> str:
    """The value of a resourceFieldRef: the amount divided by the divisor, rounded up.

    A limit that is not set counts as the node's allocatable amount. A request that is not set
    counts as the limit, or as 0 without a limit. Raises DownwardError.
    """
    path = str(reference["resource"])
    kind, _, resource = path.partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise DownwardError(f"unsupported container resource : {path}")
    resources = (container.get("resources") if container is not None else None) or {}
    limit = (resources.get("limits") or {}).get(resource)
    request = (resources.get("requests") or {}).get(resource, limit)
    amount = limit if kind == "limits" else request
    if amount is None:
        amount = node.allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = parse_quantity(reference.get("divisor") or "1") or Decimal(1)
    return str(int((parse_quantity(amount) / divisor).to_integral_value(ROUND_CEILING)))
