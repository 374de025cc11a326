"""The descriptor of flannel: flanneld on every node, with the net-conf.json of upstream's ConfigMap
kube-flannel-cfg."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.addon import (
    CIDR,
    AddOn,
    Backend,
    Choice,
    Cluster,
    File,
    Host,
    Installation,
    Process,
    Role,
    account,
    kubeconfig_path,
    rule,
)
from kubewire.components.networks.podnetwork import PodNetwork

AGENT = "flannel"
NAMESPACE = "kube-flannel"
NET_CONF = "/etc/kube-flannel/net-conf.json"


@dataclass(frozen=True)
class Mode:
    """net-conf.json's Backend: its Type, and whether it is DirectRouting."""

    type: str
    direct_routing: bool = False


def net_conf(pod_ranges: Iterable[CIDR], mode: Mode) -> dict[str, Any]:
    """net-conf.json.
    (https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md)"""
    networks = {network.version: str(network) for network in pod_ranges}
    families: dict[str, Any] = {"Network": networks[4]} if 4 in networks else {"EnableIPv4": False}
    if 6 in networks:
        families |= {"EnableIPv6": True, "IPv6Network": networks[6]}
    backend: dict[str, Any] = {"Type": mode.type}
    if mode.direct_routing:
        backend["DirectRouting"] = True
    return families | {"Backend": backend}


def _install(cluster: Cluster, choice: Choice[Mode]) -> Installation:
    content = json.dumps(net_conf(cluster.pod_ranges, choice.mode), indent=2).encode() + b"\n"
    return Installation(
        processes=tuple(_flanneld(node) for node in cluster.nodes),
        files=tuple(File(node.name, NET_CONF, content) for node in cluster.nodes),
        objects=_objects(),
    )


def _objects() -> tuple[Mapping[str, Any], ...]:
    """Those of kube-flannel.yml besides ConfigMap and DaemonSet."""
    labels = {"k8s-app": AGENT, "pod-security.kubernetes.io/enforce": "privileged"}
    metadata = {"name": NAMESPACE, "labels": labels}
    rules = (
        rule("get", "", "pods"),
        rule("get list watch", "", "nodes"),
        rule("patch", "", "nodes/status"),
    )
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    return (namespace, *account(NAMESPACE, AGENT, rules))


def _flanneld(node: Host) -> Process:
    arguments = (
        "--kube-subnet-mgr",
        "--ip-masq",
        f"--kubeconfig-file={kubeconfig_path(AGENT)}",
        f"--net-config-path={NET_CONF}",
        f"--iface={node.interface.name}",
        f"--hostname-override={node.name}",
    )
    user = f"system:serviceaccount:{NAMESPACE}:{AGENT}"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", arguments, user)


NETWORK = PodNetwork(
    AddOn(
        name="flannel",
        package=__package__,
        upstream="flanneld",
        summary="VXLAN, or a route to the other node",
        backends=(
            Backend("vxlan", Mode("vxlan")),
            Backend("vxlan-directrouting", Mode("vxlan", direct_routing=True)),
            Backend("host-gw", Mode("host-gw")),
        ),
        install=_install,
        directories=("/etc/kube-flannel",),
    )
)
