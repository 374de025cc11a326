"""The descriptor of Azure CNI: azure-cns on every node, and their virtual network."""

from __future__ import annotations

from dataclasses import dataclass

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Host,
    Installation,
    Process,
    Role,
    account,
    kubeconfig_path,
    rule,
)
from kubewire.components.networks.podnetwork import IPv4Only, PodAddresses, PodNetwork
from kubewire.components.vpc import cloud

AGENT = "azure-cns"


@dataclass(frozen=True)
class Mode:
    """overlay: pods have addresses of clusterCIDR, and the router has a route to each node's part;
    otherwise they have addresses of the nodes' subnet, which a node has from the start. max_pods:
    AKS's default."""

    overlay: bool
    max_pods: int


def _install(cluster: Cluster, choice: Choice[Mode]) -> Installation:
    reserve = None if choice.mode.overlay else _addresses(choice).max_pods
    vpc = cloud.process(cluster, reserve=reserve)
    return Installation(
        processes=(vpc, *(_azure_cns(node, cluster, choice.mode) for node in cluster.nodes)),
        objects=account("kube-system", AGENT, (rule("get list watch", "", "nodes"),)),
    )


def _azure_cns(node: Host, cluster: Cluster, mode: Mode) -> Process:
    inside = [cluster.node_cidr, cluster.cluster_cidr] if mode.overlay else [cluster.node_cidr]
    arguments = (
        f"--kubeconfig={kubeconfig_path(AGENT)}",
        f"--nodename={node.name}",
        *(["--overlay"] if mode.overlay else []),
        *(f"--non-masquerade-cidr={cidr}" for cidr in inside),
    )
    user = "system:serviceaccount:kube-system:azure-cns"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", arguments, user)


def _addresses(choice: Choice[Mode]) -> PodAddresses:
    return PodAddresses(
        from_cluster_cidr=choice.mode.overlay,
        max_pods=choice.settings["maxPods"] or choice.mode.max_pods,
    )


NETWORK = PodNetwork(
    AddOn(
        name="azure",
        package=__package__,
        upstream="azure-cns",
        summary="the VPC carries pods' addresses, or its router does",
        backends=(
            Backend("transparent", Mode(overlay=False, max_pods=30)),
            Backend("overlay", Mode(overlay=True, max_pods=250)),
        ),
        install=_install,
        settings=(cloud.MAX_PODS,),
    ),
    addresses=_addresses,
    ipv4_only=IPv4Only("is IPv4 here", nodes=True),
)
