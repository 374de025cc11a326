"""What the pod network and the policy engine of a lab file bring into the lab: their descriptors,
asked with the facts of spec and plan."""

from __future__ import annotations

from kubewire.components.addon import Cluster, Host, Installation, Interface
from kubewire.components.networks.podnetwork import PodAddresses
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.topologies.plan import Machine, TopologyPlan


def installation_of(spec: LabSpec, plan: TopologyPlan) -> Installation:
    """Their processes, files and objects, the network's first."""
    cluster = cluster_of(spec, plan)
    network = spec.cni.network.addon.install(cluster, spec.cni.choice)
    engine = spec.policy_engine.addon.install(cluster, spec.policy_choice)
    return network | engine


def pod_addresses_of(spec: LabSpec) -> PodAddresses:
    """Where pods' addresses come from, and how many a node has."""
    return spec.cni.network.addresses(spec.cni.choice)


def cluster_of(spec: LabSpec, plan: TopologyPlan) -> Cluster:
    """The facts that every descriptor gets."""
    routers = tuple(_host(machine) for machine in plan.machines if machine.role == "router")
    nodes = tuple(_host(node) for node in plan.nodes)
    cni = spec.cni
    return Cluster(
        node_cidr=spec.network.nodeCIDR,
        cluster_cidr=spec.network.clusterCIDR,
        nodes=nodes,
        routers=routers,
        network=cni.plugin,
        network_backend=cni.backend,
        policy_engine=spec.policy_engine.name,
    )


def _host(machine: Machine) -> Host:
    interfaces = tuple(
        Interface(one.name, one.address, one.switch, one.port) for one in machine.interfaces
    )
    return Host(machine.name, interfaces, machine.addresses)
