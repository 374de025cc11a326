"""Pods and nodes as endpoints: which of them policies can select, and with what addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubewire.components.policy.compiler.calico.endpoints import implicit_labels
from kubewire.components.policy.model import ContainerPort, Endpoint, EndpointKind, ObjectKey

Labels = Mapping[str, str]

#: The label that the API server puts on every namespace. A namespace in a file has it not yet.
NAME_LABEL = "kubernetes.io/metadata.name"


def namespace_labels(name: str, namespace: Mapping[str, Any] | None) -> Labels:
    """The labels of a namespace, of which the object may not be known yet. Its name's label says its
    name, whatever a file has."""
    return {**labels_of(namespace), NAME_LABEL: name}


def labels_of(obj: Mapping[str, Any] | None) -> Labels:
    """Raises TypeError if the values are not all strings, which only an unchecked file has."""
    labels: Labels = ((obj or {}).get("metadata") or {}).get("labels") or {}
    for key, value in labels.items():
        if not isinstance(value, str):
            raise TypeError(f"metadata.labels.{key}: must be a string, not {value!r}")
    return labels


def pod_endpoint(
    pod: Mapping[str, Any], of_namespace: Labels, of_account: Labels
) -> Endpoint | None:
    """None for a pod that policies cannot select: one in the node's network, which shares the
    node's addresses, and one that has ended, whose address may already be another pod's. A pod
    that is being deleted is an endpoint until it has ended: it still sends and answers."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    if spec.get("hostNetwork") or status.get("phase") in {"Succeeded", "Failed"}:
        return None
    namespace, account = metadata.get("namespace") or "default", service_account(pod)
    implicit = implicit_labels(namespace, account)
    return Endpoint(
        key=ObjectKey("Pod", namespace, metadata["name"]),
        kind=EndpointKind.POD,
        labels={**labels_of(pod), **implicit},
        addresses=tuple(_pod_addresses(status)),
        node=str(spec.get("nodeName") or ""),
        uid=metadata.get("uid") or "",
        service_account=account,
        ports=tuple(_ports(spec)),
        namespace_labels=of_namespace,
        account_labels=of_account,
    )


def service_account(pod: Mapping[str, Any]) -> str:
    spec = pod.get("spec") or {}
    return str(spec.get("serviceAccountName") or spec.get("serviceAccount") or "default")


def node_endpoint(node: Mapping[str, Any]) -> Endpoint:
    """A node as a peer, with those of its status's addresses that are IP addresses."""
    metadata = node["metadata"]
    addresses = (node.get("status") or {}).get("addresses") or ()
    return Endpoint(
        key=ObjectKey("Node", "", metadata["name"]),
        kind=EndpointKind.NODE,
        labels=labels_of(node),
        addresses=tuple(_canonical(entry.get("address") for entry in addresses)),
        node=metadata["name"],
        uid=metadata.get("uid") or "",
    )


def _pod_addresses(status: Mapping[str, Any]) -> Iterator[str]:
    given = [entry.get("ip") for entry in status.get("podIPs") or ()]
    yield from _canonical(given or [status.get("podIP")])


def _canonical(addresses: Iterable[str | None]) -> dict[str, None]:
    """In the form in which the ipaddress module, and so every set, writes them; in their order."""
    found: dict[str, None] = {}
    for text in addresses:
        try:
            found[str(ipaddress.ip_address(text or ""))] = None
        except ValueError:
            continue  # none yet, or a host name among a node's addresses
    return found


def _ports(spec: Mapping[str, Any]) -> Iterator[ContainerPort]:
    """Of the containers, and of init containers that go on running beside them."""
    sidecars = [
        container
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    ]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            yield ContainerPort(
                port.get("name") or "", port.get("protocol") or "TCP", port["containerPort"]
            )
