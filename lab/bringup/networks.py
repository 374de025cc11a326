"""The pod networks that `cni.plugin` of a lab file selects: the agent of a node, its files, and objects of the API.

A network is a folder in components/, a class here with a line in NETWORKS, and its backends in the engine's spec.py.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from typing import Any, Protocol

from kubewire.components.vpc.instances import LIMITS, max_pods
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.topologies.plan import Machine, TopologyPlan, port_name, ranges

#: Where bring-up writes the agent's kubeconfig on every node.
KUBECONFIG = "/etc/kubernetes/{}.conf"


class Network(Protocol):
    """Pure: nothing here runs anything."""

    #: Of the agent's process, and of its kubeconfig on the node; "" without an agent.
    agent: str
    #: Who the agent is for the API server.
    user: str
    main: str

    def has_pod_cidrs(self, spec: LabSpec) -> bool:
        """Whether pods' addresses are of clusterCIDR."""
        ...

    def around(self, spec: LabSpec, plan: TopologyPlan) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Processes outside of all nodes, where the switches are: name, main, command line. @pid:NAME@ in it is the pid
        of a host."""
        ...

    def max_pods(self, spec: LabSpec) -> int | None:
        """The kubelet's maxPods; None: its default."""
        ...

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        """The agent's command line."""
        ...

    def others(self, spec: LabSpec, node: Machine) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Further processes of a node: name, main, command line."""
        ...

    def files(self, spec: LabSpec, node: Machine) -> dict[str, bytes]:
        """Path -> content, on a node."""
        ...

    def objects(self, spec: LabSpec) -> list[dict[str, Any]]:
        """What its manifest applies, in order."""
        ...


class Nothing:
    """`plugin: none`: nodes stay NotReady until somebody installs a network."""

    agent = user = main = ""

    def has_pod_cidrs(self, spec: LabSpec) -> bool:
        return True

    def around(self, spec: LabSpec, plan: TopologyPlan) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        return ()

    def max_pods(self, spec: LabSpec) -> int | None:
        return spec.cni.maxPods

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        return ()

    def others(self, spec: LabSpec, node: Machine) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        return ()

    def files(self, spec: LabSpec, node: Machine) -> dict[str, bytes]:
        return {}

    def objects(self, spec: LabSpec) -> list[dict[str, Any]]:
        return []


class Flannel(Nothing):
    """components/networks/flannel."""

    agent = "flannel"
    user = "system:serviceaccount:kube-flannel:flannel"
    main = "kubewire.components.networks.flannel.main:main"
    _CONFIGURATION = "/etc/kube-flannel/net-conf.json"

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        return (
            "--kube-subnet-mgr",
            "--ip-masq",
            f"--kubeconfig-file={KUBECONFIG.format(self.agent)}",
            f"--net-config-path={self._CONFIGURATION}",
            f"--iface={node.interfaces[0].name}",
            f"--hostname-override={node.name}",
        )

    def files(self, spec: LabSpec, node: Machine) -> dict[str, bytes]:
        return {self._CONFIGURATION: json.dumps(flannel_configuration(spec), indent=2).encode() + b"\n"}


def flannel_configuration(spec: LabSpec) -> dict[str, Any]:
    """net-conf.json (https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md)."""
    networks = {network.version: str(network) for network in ranges(spec.network.clusterCIDR)}
    families: dict[str, Any] = {"Network": networks[4]} if 4 in networks else {"EnableIPv4": False}
    if 6 in networks:
        families |= {"EnableIPv6": True, "IPv6Network": networks[6]}
    if spec.cni.backend == "vxlan-directrouting":
        return families | {"Backend": {"Type": "vxlan", "DirectRouting": True}}
    return families | {"Backend": {"Type": spec.cni.backend}}


class Calico(Nothing):
    """components/networks/calico."""

    agent, user, main = (
        "calico-node",
        "system:serviceaccount:kube-system:calico-node",
        "kubewire.components.networks.calico.main:main",
    )
    _VXLAN = {"vxlan": "Always", "vxlan-crosssubnet": "CrossSubnet"}
    _IPIP = {"ipip": "Always", "ipip-crosssubnet": "CrossSubnet"}
    _CONFIG = "/etc/calico/confd/config/{}.yaml"
    _FAMILIES = {
        "bird": {"listen": ["0.0.0.0"], "families": ["ipv4"]},
        "bird6": {"listen": ["::"], "families": ["ipv6"]},
    }

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        cidrs = {f"ipv{network.version}": network for network in ranges(spec.network.clusterCIDR)}
        pools = [flag for family in ("ipv4", "ipv6") for flag in self._pool(spec, family, str(cidrs.get(family, "")))]
        return (
            f"--kubeconfig={KUBECONFIG.format(self.agent)}",
            f"--nodename={node.name}",
            f"--interface={node.interfaces[0].name}",
            *pools,
            f"--ipv4pool-ipip={self._IPIP.get(spec.cni.backend, 'Never')}",
            f"--networking-backend={'bird' if self._with_bird(spec) else 'vxlan'}",
        )

    def _pool(self, spec: LabSpec, family: str, cidr: str) -> tuple[str, ...]:
        """What leaves the pools is masqueraded in both families: the routers know no pod."""
        mode = self._VXLAN.get(spec.cni.backend, "Never")
        return f"--{family}pool-cidr={cidr}", f"--{family}pool-vxlan={mode}", f"--{family}pool-nat-outgoing=true"

    def _with_bird(self, spec: LabSpec) -> bool:
        return spec.cni.backend not in self._VXLAN

    def others(self, spec: LabSpec, node: Machine) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """The BGP daemon, which calico-node has in its own container."""
        return tuple(
            (
                name,
                "kubewire.components.bgp.main:main",
                (f"--config={self._CONFIG.format(name)}", f"--control=/var/run/calico/{name}.ctl"),
            )
            for name in self._birds(spec)
        )

    def _birds(self, spec: LabSpec) -> list[str]:
        """One for each IP version, as BIRD 1 was."""
        versions = sorted(network.version for network in ranges(spec.network.clusterCIDR))
        return ["bird" if version == 4 else "bird6" for version in versions] if self._with_bird(spec) else []

    def files(self, spec: LabSpec, node: Machine) -> dict[str, bytes]:
        """BIRD's as it is before confd has written its first."""
        router_id = next((address for address in node.addresses if ":" not in address), "127.0.0.1")
        first = {"localAS": 64512, "routerID": router_id}
        return {
            self._CONFIG.format(name): json.dumps(first | self._FAMILIES[name]).encode() for name in self._birds(spec)
        }

    def objects(self, spec: LabSpec) -> list[dict[str, Any]]:
        from kubewire.components.networks.calico import manifests

        return manifests.objects()


class Weave(Nothing):
    """components/networks/weave."""

    agent, user, main = (
        "weave-net",
        "system:serviceaccount:kube-system:weave-net",
        "kubewire.components.networks.weave.main:main",
    )
    #: Upstream's Secret for the password; the password of a lab, which has no uplink, is no secret.
    _SECRET, _PASSWORD = "weave-passwd", "kubewire"

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        arguments = [
            f"--kubeconfig={KUBECONFIG.format(self.agent)}",
            f"--nickname={node.name}",
            f"--interface={node.interfaces[0].name}",
            f"--ipalloc-range={spec.network.clusterCIDR}",
            f"--ipalloc-init=consensus={spec.topology.workers + 1}",
        ]
        if spec.cni.backend.startswith("sleeve"):
            arguments.append("--no-fastdp")
        if spec.cni.backend.endswith("-encrypted"):
            arguments.append(f"--password-secret={self._SECRET}")
        return tuple(arguments)

    def objects(self, spec: LabSpec) -> list[dict[str, Any]]:
        if not spec.cni.backend.endswith("-encrypted"):
            return []
        metadata = {"name": self._SECRET, "namespace": "kube-system"}
        data = {self._SECRET: base64.b64encode(self._PASSWORD.encode()).decode()}
        return [{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}]


class AwsVpc(Nothing):
    """components/networks/aws_vpc_cni, in components/vpc."""

    agent, user, main = (
        "aws-node",
        "system:serviceaccount:kube-system:aws-node",
        "kubewire.components.networks.aws_vpc_cni.main:main",
    )

    def has_pod_cidrs(self, spec: LabSpec) -> bool:
        return False

    def around(self, spec: LabSpec, plan: TopologyPlan) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        return (("vpc", "kubewire.components.vpc.main:main", (f"--lab={json.dumps(cloud(spec, plan))}",)),)

    def max_pods(self, spec: LabSpec) -> int | None:
        prefixes = spec.cni.backend == "prefix-delegation"
        return spec.cni.maxPods or max_pods(spec.cni.instanceType, prefixes=prefixes)

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        interfaces, addresses = LIMITS[spec.cni.instanceType]
        environment = dict(spec.cni.env)
        if spec.cni.backend == "prefix-delegation":
            environment = {"ENABLE_PREFIX_DELEGATION": "true"} | environment
        return (
            f"--limits={interfaces},{addresses}",
            f"--interface={node.interfaces[0].name}",
            *(f"--env={name}={value}" for name, value in environment.items()),
        )


class Azure(Nothing):
    """components/networks/azure_cni, in components/vpc."""

    agent, user, main = (
        "azure-cns",
        "system:serviceaccount:kube-system:azure-cns",
        "kubewire.components.networks.azure_cni.main:main",
    )
    _MAX_PODS = {"transparent": 30, "overlay": 250}

    def has_pod_cidrs(self, spec: LabSpec) -> bool:
        return spec.cni.backend == "overlay"

    def around(self, spec: LabSpec, plan: TopologyPlan) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        lab = cloud(spec, plan)
        if spec.cni.backend == "transparent":
            for instance in lab["instances"]:
                instance["reserve"] = self.max_pods(spec)
        return (("vpc", "kubewire.components.vpc.main:main", (f"--lab={json.dumps(lab)}",)),)

    def max_pods(self, spec: LabSpec) -> int:
        return spec.cni.maxPods or self._MAX_PODS[spec.cni.backend]

    def arguments(self, spec: LabSpec, node: Machine) -> tuple[str, ...]:
        inside = [spec.network.nodeCIDR, *([spec.network.clusterCIDR] if spec.cni.backend == "overlay" else [])]
        return (
            f"--kubeconfig={KUBECONFIG.format(self.agent)}",
            f"--nodename={node.name}",
            *(["--overlay"] if spec.cni.backend == "overlay" else []),
            *(f"--non-masquerade-cidr={cidr}" for cidr in inside),
        )


def cloud(spec: LabSpec, plan: TopologyPlan) -> dict[str, Any]:
    """The topology as components/vpc wants it: every switch with nodes is a subnet."""
    subnets = {}
    for router in (machine for machine in plan.machines if machine.role == "router"):
        for interface in router.interfaces:
            if any(node.interfaces[0].switch == interface.switch for node in plan.nodes):
                network = ipaddress.ip_interface(interface.address).network
                subnets[interface.switch] = {
                    "cidr": str(network),
                    "switch": interface.switch,
                    "router": {
                        "pid": f"@pid:{router.name}@",
                        "interface": interface.name,
                        "port": port_name(interface.switch, router.name),
                        "address": interface.address.partition("/")[0],
                    },
                }
    instances = [
        {
            "name": node.name,
            "pid": f"@pid:{node.name}@",
            "type": spec.cni.instanceType,
            "address": node.address,
            "switch": node.interfaces[0].switch,
            "port": port_name(node.interfaces[0].switch, node.name),
        }
        for node in plan.nodes
    ]
    return {
        "cidr": spec.network.nodeCIDR,
        "router": "@pid:router@",
        "groups": dict(spec.cni.env).get("ENI_SECURITY_GROUPS", "").split(),
        "subnets": list(subnets.values()),
        "instances": instances,
    }


NETWORKS: dict[str, Network] = {
    "none": Nothing(),
    "flannel": Flannel(),
    "calico": Calico(),
    "weave": Weave(),
    "aws-vpc": AwsVpc(),
    "azure": Azure(),
}


def network_of(spec: LabSpec) -> Network:
    return NETWORKS[spec.cni.plugin]
