"""What the pod network of a lab file brings into the lab: its descriptor, asked with the facts of
spec and plan."""

from __future__ import annotations

from kubewire.components.addon import Cluster, Host, Installation, Interface
from kubewire.components.networks.podnetwork import PodAddresses
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.topologies.plan import Machine, TopologyPlan


def installation_of(spec: LabSpec, plan: TopologyPlan) -> Installation:
    """Its processes, files and objects."""
    return spec.cni.network.addon.install(cluster_of(spec, plan), spec.cni.choice)


def pod_addresses_of(spec: LabSpec) -> PodAddresses:
    """Where pods' addresses come from, and how many a node has."""
    return spec.cni.network.addresses(spec.cni.choice)


def cluster_of(spec: LabSpec, plan: TopologyPlan) -> Cluster:
    """The facts that every descriptor gets."""
    routers = tuple(_host(machine) for machine in plan.machines if machine.role == "router")
    nodes = tuple(_host(node) for node in plan.nodes)
    return Cluster(spec.network.nodeCIDR, spec.network.clusterCIDR, nodes, routers)


def _host(machine: Machine) -> Host:
    interfaces = tuple(
        Interface(one.name, one.address, one.switch, one.port) for one in machine.interfaces
    )
    return Host(machine.name, interfaces, machine.addresses)
