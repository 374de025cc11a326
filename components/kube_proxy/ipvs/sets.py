"""The ipsets of IPVS mode as a table, and as text of `ipset restore` and `ipset save`. Pure.

Names, types and comments are upstream's (pkg/proxy/ipvs/ipset.go). A name here is the IPv4 one;
`named` gives that of a family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from kubewire.components.kube_proxy.state.model import IPV6

LOOP_BACK = "KUBE-LOOP-BACK"
CLUSTER_IP = "KUBE-CLUSTER-IP"
EXTERNAL_IP = "KUBE-EXTERNAL-IP"
EXTERNAL_IP_LOCAL = "KUBE-EXTERNAL-IP-LOCAL"
LOAD_BALANCER = "KUBE-LOAD-BALANCER"
LOAD_BALANCER_FW = "KUBE-LOAD-BALANCER-FW"
LOAD_BALANCER_LOCAL = "KUBE-LOAD-BALANCER-LOCAL"
LOAD_BALANCER_SOURCE_IP = "KUBE-LOAD-BALANCER-SOURCE-IP"
LOAD_BALANCER_SOURCE_CIDR = "KUBE-LOAD-BALANCER-SOURCE-CIDR"
HEALTH_CHECK_NODE_PORT = "KUBE-HEALTH-CHECK-NODE-PORT"
IPVS_IPS = "KUBE-IPVS-IPS"
#: Protocol -> NodePorts; and those with external policy Local.
NODE_PORT = {
    "tcp": "KUBE-NODE-PORT-TCP",
    "udp": "KUBE-NODE-PORT-UDP",
    "sctp": "KUBE-NODE-PORT-SCTP-HASH",
}
NODE_PORT_LOCAL = {
    "tcp": "KUBE-NODE-PORT-LOCAL-TCP",
    "udp": "KUBE-NODE-PORT-LOCAL-UDP",
    "sctp": "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
}

_LONGEST_NAME = 31


class IPSet(NamedTuple):
    type: str
    comment: str


_IP, _IP_PORT, _IP_PORT_IP, _IP_PORT_NET = (
    "hash:ip",
    "hash:ip,port",
    "hash:ip,port,ip",
    "hash:ip,port,net",
)
_PORTS = "bitmap:port"
_LOCAL, _BY_HASH = "with externalTrafficPolicy=local", "with type 'hash ip:port'"
SETS: Mapping[str, IPSet] = {
    LOOP_BACK: IPSet(
        _IP_PORT_IP, "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"
    ),
    CLUSTER_IP: IPSet(_IP_PORT, "Kubernetes service cluster ip + port for masquerade purpose"),
    EXTERNAL_IP: IPSet(
        _IP_PORT, "Kubernetes service external ip + port for masquerade and filter purpose"
    ),
    EXTERNAL_IP_LOCAL: IPSet(_IP_PORT, f"Kubernetes service external ip + port {_LOCAL}"),
    LOAD_BALANCER: IPSet(_IP_PORT, "Kubernetes service lb portal"),
    LOAD_BALANCER_FW: IPSet(
        _IP_PORT, "Kubernetes service load balancer ip + port for load balancer with sourceRange"
    ),
    LOAD_BALANCER_LOCAL: IPSet(_IP_PORT, f"Kubernetes service load balancer ip + port {_LOCAL}"),
    LOAD_BALANCER_SOURCE_IP: IPSet(
        _IP_PORT_IP,
        "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
    ),
    LOAD_BALANCER_SOURCE_CIDR: IPSet(
        _IP_PORT_NET,
        "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
    ),
    NODE_PORT["tcp"]: IPSet(_PORTS, "Kubernetes nodeport TCP port for masquerade purpose"),
    NODE_PORT_LOCAL["tcp"]: IPSet(_PORTS, f"Kubernetes nodeport TCP port {_LOCAL}"),
    NODE_PORT["udp"]: IPSet(_PORTS, "Kubernetes nodeport UDP port for masquerade purpose"),
    NODE_PORT_LOCAL["udp"]: IPSet(_PORTS, f"Kubernetes nodeport UDP port {_LOCAL}"),
    NODE_PORT["sctp"]: IPSet(
        _IP_PORT, f"Kubernetes nodeport SCTP port for masquerade purpose {_BY_HASH}"
    ),
    NODE_PORT_LOCAL["sctp"]: IPSet(_IP_PORT, f"Kubernetes nodeport SCTP port {_LOCAL} {_BY_HASH}"),
    HEALTH_CHECK_NODE_PORT: IPSet(_PORTS, "Kubernetes health check node port"),
    IPVS_IPS: IPSet(_IP, "Addresses on the ipvs interface"),
}
#: Set -> entries, as `ipset save` prints them.
Entries = Mapping[str, frozenset[str]]


def named(name: str, family: str) -> str:
    """A set's name in a family: KUBE-X and KUBE-6-X live side by side; the kernel takes 31
    characters."""
    return name.replace("KUBE-", "KUBE-6-", 1)[:_LONGEST_NAME] if family == IPV6 else name


@lru_cache(maxsize=65536)
def address(text: str) -> str:
    """An address as the kernel's tools print it."""
    return str(ip_address(text))


def ip_port(ip: str, protocol: str, port: int) -> str:
    return f"{address(ip)},{protocol}:{port}"


def ip_port_ip(ip: str, protocol: str, port: int, other: str) -> str:
    return f"{ip_port(ip, protocol, port)},{address(other)}"


def ip_port_nets(ip: str, protocol: str, port: int, cidr: str) -> list[str]:
    """One entry; two for a range of all addresses, as a set cannot hold a prefix of length 0."""
    network = ip_network(cidr, strict=False)
    halves = network.subnets() if network.prefixlen == 0 else (network,)
    whole = network.max_prefixlen
    nets = [str(half.network_address) if half.prefixlen == whole else str(half) for half in halves]
    return [f"{ip_port(ip, protocol, port)},{net}" for net in nets]


def creations(family: str) -> list[str]:
    """Lines of `ipset restore -exist`; sets that are there stay as they are."""
    return [
        f"create {named(name, family)} {item.type} {_options(item.type, family)}"
        for name, item in SETS.items()
    ]


def _options(kind: str, family: str) -> str:
    if kind == _PORTS:
        return "range 0-65535"
    return f"family {'inet6' if family == IPV6 else 'inet'} hashsize 1024 maxelem 65536"


def additions(wanted: Entries, present: Entries, family: str) -> list[str]:
    return _lines("add", wanted, present, family)


def deletions(wanted: Entries, present: Entries, family: str) -> list[str]:
    return _lines("del", present, wanted, family)


def _lines(verb: str, of: Entries, without: Entries, family: str) -> list[str]:
    none: frozenset[str] = frozenset()
    return [
        f"{verb} {named(name, family)} {entry}"
        for name in SETS
        if of.get(name, none) is not without.get(name, none)
        for entry in sorted(of.get(name, none) - without.get(name, none))
    ]


def parse(saved: str, family: str) -> dict[str, frozenset[str]]:
    """The sets of a family that are there, by their IPv4 names, from `ipset save`; others' are left
    out."""
    ours = {named(name, family): name for name in SETS}
    found: dict[str, set[str]] = {}
    for line in saved.splitlines():
        verb, _, rest = line.partition(" ")
        name, _, entry = rest.partition(" ")
        if name in ours and verb == "create":
            found[ours[name]] = set()
        elif name in ours and verb == "add":
            found[ours[name]].add(entry)
    return {name: frozenset(entries) for name, entries in found.items()}


def nonempty(entries: Entries) -> frozenset[str]:
    return frozenset(name for name, of_it in entries.items() if of_it)


def destructions(present: Iterable[str], family: str) -> list[str]:
    return [f"destroy {named(name, family)}" for name in SETS if name in present]
