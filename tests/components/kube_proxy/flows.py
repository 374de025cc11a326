"""The flow table: who connects from where to which address under which policy, which pods answer, and whom they see.
One table for every proxy mode and both IP families; where a mode differs from the others, the row says so.

Pods, nodes and the client are those of scratch.py. A row's destination is written as

    cluster SVC[:PORT]   its ClusterIP        node1 SVC, node2 SVC   its NodePort there
    vip SVC              its balancer's       bridge1 SVC            its NodePort on node1's pod-side address
    external SVC         its externalIP       localhost SVC          its NodePort on the loopback address
    unallocated          a ClusterIP that no Service has, and that somebody on the network answers for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubewire.components.kube_proxy.configuration.config import (
    DetectLocal,
    IptablesSettings,
    KubeProxyConfiguration,
    NftablesSettings,
)
from tests.components.kube_proxy.scratch import ADDRESSES, Addresses

#: Number of the ClusterIP (in its range) that is answered for by the client host although no Service has it.
UNALLOCATED = 200


@dataclass(frozen=True)
class Service:
    """A Service as the API has it. number is the last one of its addresses, and its NodePort is 30000 more. pods:
    its endpoints; conditions and hints: of an EndpointSlice, by pod."""

    number: int
    pods: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = "TCP"
    vip: str = ""
    external_ip: bool = False
    conditions: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    hints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_DRAINING = {"ready": False, "serving": True, "terminating": True}
_GONE = {"ready": False, "serving": False, "terminating": True}
_LOCAL = {"externalTrafficPolicy": "Local"}


def _zones(**zones: str) -> dict[str, dict[str, Any]]:
    return {pod: {"forZones": [{"name": zone}]} for pod, zone in zones.items()}


def _nodes(**nodes: str) -> dict[str, dict[str, Any]]:
    return {pod: {"forNodes": [{"name": node}]} for pod, node in nodes.items()}


#: Source ranges are written as whom they hold.
SERVICES = {
    "web": Service(10, "bc"),
    "remote": Service(11, "c"),
    "local-pod": Service(12, "b"),
    "self": Service(13, "a"),
    "none": Service(14, "", vip="VIP", external_ip=True),
    "udp": Service(15, "b", protocol="UDP"),
    "udp-none": Service(16, "", protocol="UDP"),
    "sctp": Service(17, "b", protocol="SCTP"),
    "sctp-remote": Service(18, "c", protocol="SCTP"),
    "ext-local": Service(20, "bc", _LOCAL, vip="VIP", external_ip=True),
    "ext-elsewhere": Service(21, "c", _LOCAL, vip="VIP", external_ip=True),
    "int-local": Service(22, "bc", {"internalTrafficPolicy": "Local"}),
    "int-elsewhere": Service(23, "c", {"internalTrafficPolicy": "Local"}),
    "both-local": Service(24, "bc", _LOCAL | {"internalTrafficPolicy": "Local"}),
    "balanced": Service(30, "bc", vip="VIP", external_ip=True),
    "proxied": Service(31, "b", vip="Proxy"),
    "guarded": Service(32, "b", {"loadBalancerSourceRanges": "without the client"}, vip="VIP", external_ip=True),
    "admitted": Service(33, "b", {"loadBalancerSourceRanges": "with the client"}, vip="VIP"),
    "draining": Service(40, "bc", conditions={"b": _DRAINING, "c": _GONE}),
    "draining-and-ready": Service(41, "bc", conditions={"b": _DRAINING}),
    "local-drains": Service(42, "bc", _LOCAL, conditions={"b": _DRAINING}),
    "all-gone": Service(43, "bc", conditions={"b": _GONE, "c": _GONE}),
    "not-ready-but-published": Service(44, "b", conditions={"b": {"ready": True, "serving": False}}),
    "zoned": Service(50, "bc", hints=_zones(b="z1", c="z2")),
    "zoned-by-half": Service(51, "bc", hints=_zones(b="z1")),
    "for-nodes": Service(52, "bc", hints=_nodes(b="node1", c="node2")),
    "sticky": Service(60, "bc", {"sessionAffinity": "ClientIP"}),
    "sticky-for-a-second": Service(
        61, "bc", {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}
    ),
}


@dataclass(frozen=True)
class Answered:
    """by: one letter per pod ("client": the host of that name). seen: the source address that they see, by name:
    a pod, a host, or bridge1 and bridge2 for the nodes' pod-side addresses; one for all, or one per answering pod."""

    by: str
    seen: str | Mapping[str, str]


REFUSED, DROPPED = "refused", "dropped"
Expected = Answered | str


@dataclass(frozen=True)
class Flow:
    """expected may differ by "MODE FAMILY", "MODE" or "FAMILY"; then "*" is for all others."""

    title: str
    source: str
    to: str
    expected: Expected | Mapping[str, Expected]
    protocol: str = "TCP"

    def expects(self, mode: str, family: str) -> Expected:
        if not isinstance(self.expected, Mapping):
            return self.expected
        keys = (f"{mode} {family}", mode, family, "*")
        return next(self.expected[key] for key in keys if key in self.expected)


#: What an endpoint sees when a node masquerades: the address of the interface the packet leaves by.
BY_NODE1 = {"a": "bridge1", "b": "bridge1", "c": "node1"}
BY_NODE2 = {"a": "node2", "b": "node2", "c": "bridge2"}

FLOWS = [
    # ClusterIP
    Flow("a pod to a ClusterIP keeps its address", "a", "cluster web", Answered("bc", "a")),
    Flow("an endpoint on the client's own bridge", "a", "cluster local-pod", Answered("b", "a")),
    Flow("a pod of the other node to a ClusterIP", "c", "cluster local-pod", Answered("b", "c")),
    Flow("the node to a ClusterIP, endpoint here", "node1", "cluster local-pod", Answered("b", BY_NODE1)),
    Flow("the node to a ClusterIP, endpoint elsewhere", "node1", "cluster remote", Answered("c", BY_NODE1)),
    Flow("outside to a ClusterIP is masqueraded", "client", "cluster web", Answered("bc", BY_NODE1)),
    Flow("hairpin: a pod that reaches itself sees the bridge", "a", "cluster self", Answered("a", BY_NODE1)),
    Flow("hairpin through the NodePort", "a", "node1 self", Answered("a", BY_NODE1)),
    Flow(
        "a port of a ClusterIP that no Service has",
        "a",
        "cluster web:81",
        {"iptables": DROPPED, "*": REFUSED},
    ),
    Flow(
        "the same from the node",
        "node1",
        "cluster web:81",
        {"iptables": DROPPED, "*": REFUSED},
    ),
    Flow(
        "a ClusterIP that no Service has leaves the node but in nftables mode",
        "a",
        "unallocated",
        {"nftables": DROPPED, "*": Answered("client", "a")},
    ),
    # NodePort
    Flow("outside to a NodePort is masqueraded", "client", "node1 web", Answered("bc", BY_NODE1)),
    Flow("a NodePort of a node without a pod", "client", "node2 local-pod", Answered("b", BY_NODE2)),
    Flow("a pod to the NodePort of its node is masqueraded", "a", "node1 remote", Answered("c", BY_NODE1)),
    Flow("a pod to the NodePort of the other node", "a", "node2 web", Answered("bc", BY_NODE2)),
    Flow("the node to its NodePort", "node1", "node1 web", Answered("bc", BY_NODE1)),
    Flow(
        "a NodePort on the node's pod-side address",
        "a",
        "bridge1 remote",
        {"nftables": REFUSED, "*": Answered("c", BY_NODE1)},
    ),
    Flow(
        "a NodePort on localhost is for iptables and IPv4",
        "node1",
        "localhost local-pod",
        {"iptables IPv4": Answered("b", BY_NODE1), "*": REFUSED},
    ),
    # externalIPs and load balancers
    Flow("outside to an externalIP is masqueraded", "client", "external balanced", Answered("bc", BY_NODE1)),
    Flow("a pod to an externalIP is masqueraded", "a", "external balanced", Answered("bc", BY_NODE1)),
    Flow("the node to an externalIP", "node1", "external balanced", Answered("bc", BY_NODE1)),
    Flow("outside to a balancer's address", "client", "vip balanced", Answered("bc", BY_NODE1)),
    Flow("a pod to a balancer's address does not leave the node", "a", "vip balanced", Answered("bc", BY_NODE1)),
    Flow("ipMode Proxy: a pod's packets go to the balancer", "a", "vip proxied", Answered("client", "a")),
    Flow("source ranges without the client", "client", "vip guarded", DROPPED),
    Flow("source ranges without the pod", "a", "vip guarded", DROPPED),
    Flow("source ranges without the node", "node1", "vip guarded", DROPPED),
    Flow("source ranges leave NodePorts alone", "client", "node1 guarded", Answered("b", BY_NODE1)),
    Flow("source ranges leave externalIPs alone", "client", "external guarded", Answered("b", BY_NODE1)),
    Flow("source ranges leave ClusterIPs alone", "a", "cluster guarded", Answered("b", "a")),
    Flow("source ranges with the client", "client", "vip admitted", Answered("b", BY_NODE1)),
    Flow("source ranges with the client but not the pod", "a", "vip admitted", DROPPED),
    # Traffic policies
    Flow("external policy Local keeps the client's address", "client", "node1 ext-local", Answered("b", "client")),
    Flow("external policy Local by a balancer's address", "client", "vip ext-local", Answered("b", "client")),
    Flow("external policy Local by an externalIP", "client", "external ext-local", Answered("b", "client")),
    Flow("external policy Local, from the node: any pod", "node1", "node1 ext-local",
         {"ipvs": Answered("b", "node1"), "*": Answered("bc", BY_NODE1)}),
    Flow("external policy Local, from the node to the balancer's address", "node1", "vip ext-elsewhere",
         {"ipvs": DROPPED, "*": Answered("c", BY_NODE1)}),
    Flow("external policy Local, from a pod: any pod, not masqueraded", "a", "node1 ext-elsewhere",
         Answered("c", "a")),
    Flow("external policy Local, from a pod to the balancer's address", "a", "vip ext-local",
         {"ipvs": Answered("b", "a"), "*": Answered("bc", "a")}),
    Flow("external policy Local without a pod here", "client", "node1 ext-elsewhere", DROPPED),
    Flow("the same by a balancer's address", "client", "vip ext-elsewhere", DROPPED),
    Flow("the same by an externalIP", "client", "external ext-elsewhere", DROPPED),
    Flow("external policy Local leaves the ClusterIP alone", "a", "cluster ext-elsewhere", Answered("c", "a")),
    Flow("internal policy Local takes the pod here", "a", "cluster int-local", Answered("b", "a")),
    Flow("internal policy Local from the node", "node1", "cluster int-local", Answered("b", BY_NODE1)),
    Flow("internal policy Local without a pod here", "a", "cluster int-elsewhere",
         {"ipvs": Answered("c", "a"), "*": DROPPED}),
    Flow("internal policy Local leaves the NodePort alone", "client", "node1 int-elsewhere", Answered("c", BY_NODE1)),
    Flow("both Local: a pod to the ClusterIP stays here", "a", "cluster both-local", Answered("b", "a")),
    Flow("both Local: a pod to the NodePort may go anywhere", "a", "node1 both-local",
         {"ipvs": Answered("b", "a"), "*": Answered("bc", "a")}),
    # Without endpoints
    Flow("no endpoint, from a pod", "a", "cluster none", REFUSED),
    Flow("no endpoint, from the node", "node1", "cluster none", REFUSED),
    Flow("no endpoint, from outside", "client", "cluster none", REFUSED),
    Flow("no endpoint, by NodePort", "client", "node1 none", REFUSED),
    Flow("no endpoint, by NodePort from the node", "node1", "node1 none", REFUSED),
    Flow("no endpoint, by externalIP", "client", "external none", REFUSED),
    Flow("no endpoint, by balancer", "client", "vip none", REFUSED),
    Flow("no endpoint, UDP", "a", "cluster udp-none", REFUSED, "UDP"),
    # Conditions and hints
    Flow("draining pods answer when none is ready", "a", "cluster draining", Answered("b", "a")),
    Flow("draining pods rest while one is ready", "a", "cluster draining-and-ready", Answered("c", "a")),
    Flow("Local falls back to draining pods by itself", "client", "node1 local-drains", Answered("b", "client")),
    Flow("while Cluster takes the ready one", "a", "cluster local-drains", Answered("c", "a")),
    Flow("terminating and not serving any more", "a", "cluster all-gone", REFUSED),
    Flow("publishNotReadyAddresses", "a", "cluster not-ready-but-published", Answered("b", "a")),
    Flow("hints keep traffic in its zone", "a", "cluster zoned", Answered("b", "a")),
    Flow("and the other zone's in that", "c", "cluster zoned", Answered("c", BY_NODE2)),
    Flow("hints that not all endpoints have do not count", "a", "cluster zoned-by-half", Answered("bc", "a")),
    Flow("hints keep traffic on its node", "a", "cluster for-nodes", Answered("b", "a")),
    # Other protocols
    Flow("UDP, a pod to a ClusterIP", "a", "cluster udp", Answered("b", "a"), "UDP"),
    Flow("UDP, outside to a NodePort", "client", "node2 udp", Answered("b", BY_NODE2), "UDP"),
    Flow("SCTP, a pod to a ClusterIP", "a", "cluster sctp", Answered("b", "a"), "SCTP"),
    Flow("SCTP, the node to a ClusterIP", "node1", "cluster sctp-remote", Answered("c", BY_NODE1), "SCTP"),
    Flow("SCTP, outside to a NodePort", "client", "node2 sctp", Answered("b", BY_NODE2), "SCTP"),
]  # fmt: skip


@dataclass(frozen=True)
class Variation:
    """Another configuration, and what is different with it."""

    config: Mapping[str, Any]
    flows: list[Flow]


_TOLD = [
    Flow("a pod keeps its address", "a", "cluster web", Answered("bc", "a")),
    Flow("the node is masqueraded", "node1", "cluster web", Answered("bc", BY_NODE1)),
    Flow("outside is masqueraded", "client", "cluster web", Answered("bc", BY_NODE1)),
    Flow("a pod takes the short cut", "a", "node1 ext-elsewhere", Answered("c", "a")),
]
#: The pods of the other node are not this node's: NodeCIDR and interfaces tell, ClusterCIDR does not.
_FROM_ELSEWHERE = [Flow("a pod of the other node", "c", "vip ext-elsewhere", Answered("c", BY_NODE2))]

VARIATIONS = {
    "masqueradeAll": Variation(
        {"masquerade_all": True},
        [
            Flow("a pod to a ClusterIP is masqueraded", "a", "cluster web", Answered("bc", BY_NODE1)),
            Flow("external policy Local still keeps the client", "client", "node1 ext-local", Answered("b", "client")),
        ],
    ),
    "detectLocalMode NodeCIDR": Variation({"detect_local_mode": "NodeCIDR"}, [*_TOLD, *_FROM_ELSEWHERE]),
    "detectLocalMode BridgeInterface": Variation(
        {"detect_local_mode": "BridgeInterface", "detect_local": DetectLocal(bridge_interface="cni0")}, _TOLD
    ),
    "detectLocalMode InterfaceNamePrefix": Variation(
        {"detect_local_mode": "InterfaceNamePrefix", "detect_local": DetectLocal(interface_name_prefix="cni")}, _TOLD
    ),
    "local pods cannot be told": Variation(
        {"cluster_cidr": ""},
        [
            Flow("nobody is masqueraded to a ClusterIP", "a", "cluster web", Answered("bc", "a")),
            Flow("not even the client", "client", "cluster local-pod", Answered("b", "client")),
            Flow(
                "no short cut for pods",
                "a",
                "node1 ext-elsewhere",
                {"ipvs": Answered("c", "a"), "*": DROPPED},
            ),
        ],
    ),
    "nodePortAddresses with the pod side alone": Variation(
        {"node_port_addresses": "pod side"},
        [
            Flow("a NodePort there", "a", "bridge1 remote", Answered("c", BY_NODE1)),
            Flow("none on the node's own address", "client", "node1 remote", REFUSED),
        ],
    ),
    "nodePortAddresses with everything": Variation(
        {"node_port_addresses": "everything"},
        [
            Flow("a NodePort on the pod side", "a", "bridge1 remote", Answered("c", BY_NODE1)),
            Flow("a NodePort on the node's own address", "client", "node1 remote", Answered("c", BY_NODE1)),
            Flow("no endpoint", "client", "node1 none", REFUSED),
            Flow(
                "on localhost for iptables and IPv4",
                "node1",
                "localhost local-pod",
                {"iptables IPv4": Answered("b", BY_NODE1), "*": REFUSED},
            ),
        ],
    ),
    "iptables.localhostNodePorts false": Variation(
        {"localhost_node_ports": False},
        [Flow("none on localhost", "node1", "localhost local-pod", REFUSED)],
    ),
}


def destination(flow: Flow, a: Addresses) -> tuple[str, int]:
    """Address and port that a row connects to."""
    where, _, rest = flow.to.partition(" ")
    if where == "unallocated":
        return a.in_range(0, UNALLOCATED), 8080
    name, _, port = rest.partition(":")
    number = SERVICES[name].number
    ranges = {"cluster": 0, "external": 1, "vip": 2}
    if where in ranges:
        return a.in_range(ranges[where], number), int(port or 80)
    hosts = a.hosts | {"localhost": "::1" if ":" in a.fabric else "127.0.0.1", "bridge1": a.bridges["node1"]}
    return hosts[where], 30000 + number


def named(address: str, a: Addresses) -> str:
    """An address as the table writes it."""
    names = {ip: name for name, ip in (*a.pods.items(), *a.hosts.items())}
    names |= {ip: f"bridge{node[-1]}" for node, ip in a.bridges.items()}
    return names.get(address, address)


def objects(family: str) -> list[tuple[Any, Any]]:
    """(Service, EndpointSlice) of the table."""
    return [(_service(name, item, family), _slice(name, item, family)) for name, item in SERVICES.items()]


def _service(name: str, item: Service, family: str) -> dict[str, Any]:
    a, spec = ADDRESSES[family], dict(item.spec)
    if ranges := spec.get("loadBalancerSourceRanges"):
        outside, client = ("203.0.113.0/24", f"{a.hosts['client']}/32")
        if ":" in a.fabric:
            outside, client = "2001:db8::/32", f"{a.hosts['client']}/128"
        spec["loadBalancerSourceRanges"] = [outside, client] if ranges == "with the client" else [outside]
    if item.external_ip:
        spec["externalIPs"] = [a.in_range(1, item.number)]
    entry = {"name": "p", "port": 80, "protocol": item.protocol, "nodePort": 30000 + item.number}
    ip = a.in_range(0, item.number)
    ingress = [{"ip": a.in_range(2, item.number), "ipMode": item.vip}] if item.vip else []
    return {
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"type": "LoadBalancer", "clusterIP": ip, "clusterIPs": [ip], "ports": [entry]} | spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def _slice(name: str, item: Service, family: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": family,
        "ports": [{"name": "p", "port": 8080, "protocol": item.protocol}],
        "endpoints": [
            {
                "addresses": [ADDRESSES[family].pods[pod]],
                "nodeName": "node2" if pod == "c" else "node1",
                "conditions": item.conditions.get(pod, {"ready": True}),
                "hints": item.hints.get(pod),
            }
            for pod in item.pods
        ],
    }


def config(mode: str, family: str, changes: Mapping[str, Any]) -> KubeProxyConfiguration:
    """The configuration of a table, with a variation's changes."""
    a, changes = ADDRESSES[family], dict(changes)
    if addresses := changes.get("node_port_addresses"):
        everything = "::/0" if ":" in a.fabric else "0.0.0.0/0"
        pod_side = [f"{ip}/{128 if ':' in ip else 32}" for ip in a.bridges.values()]
        changes["node_port_addresses"] = (everything,) if addresses == "everything" else tuple(pod_side)
    masquerade_all = changes.pop("masquerade_all", False)
    sections: dict[str, Any] = {
        "iptables": IptablesSettings(
            masquerade_all=masquerade_all, localhost_node_ports=changes.pop("localhost_node_ports", True)
        ),
        "nftables": NftablesSettings(masquerade_all=masquerade_all),
    }
    return KubeProxyConfiguration(**({"mode": mode, "cluster_cidr": a.cluster_cidr} | sections | changes))
