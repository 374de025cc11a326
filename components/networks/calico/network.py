"""The descriptor of Calico: calico-node on every node, and BIRD beside it for the BGP backends."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    File,
    Host,
    Installation,
    Process,
    Role,
    kubeconfig_path,
)
from kubewire.components.networks.calico import manifests
from kubewire.components.networks.podnetwork import PodNetwork

AGENT = "calico-node"
_BIRD_CONFIG, _BIRD_CONTROL = "/etc/calico/confd/config/{}.yaml", "/var/run/calico/{}.ctl"
#: The AS of every node unless a BGPConfiguration names another (Calico's default).
_AS_NUMBER = 64512


@dataclass(frozen=True)
class Mode:
    """vxlan, ipip: the pool's vxlanMode and ipipMode. bgp: nodes announce their blocks by
    BGP."""

    vxlan: str = "Never"
    ipip: str = "Never"
    bgp: bool = False


@dataclass(frozen=True)
class Bird:
    """One BGP daemon. There is one for each IP version, as BIRD 1 was."""

    name: str
    listen: str
    family: str


BIRDS = {4: Bird("bird", "0.0.0.0", "ipv4"), 6: Bird("bird6", "::", "ipv6")}


def _install(cluster: Cluster, choice: Choice[Mode]) -> Installation:
    versions = sorted(network.version for network in cluster.pod_ranges)
    birds = [BIRDS[version] for version in versions] if choice.mode.bgp else []
    processes: list[Process] = []
    for node in cluster.nodes:
        processes.append(_calico_node(node, cluster, choice.mode))
        processes += [_bird(node, bird) for bird in birds]
    return Installation(
        processes=tuple(processes),
        files=tuple(_first_configuration(node, bird) for node in cluster.nodes for bird in birds),
        objects=tuple(manifests.objects()),
    )


def _calico_node(node: Host, cluster: Cluster, mode: Mode) -> Process:
    cidrs = {network.version: str(network) for network in cluster.pod_ranges}
    arguments = (
        f"--kubeconfig={kubeconfig_path(AGENT)}",
        f"--nodename={node.name}",
        f"--interface={node.interface.name}",
        *_pool("ipv4", cidrs.get(4, ""), mode),
        *_pool("ipv6", cidrs.get(6, ""), mode),
        f"--ipv4pool-ipip={mode.ipip}",
        f"--networking-backend={'bird' if mode.bgp else 'vxlan'}",
    )
    user = "system:serviceaccount:kube-system:calico-node"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", arguments, user)


def _pool(family: str, cidr: str, mode: Mode) -> tuple[str, ...]:
    """The pool's flags. Packets that leave the pools are masqueraded in both families, because the
    routers have no route to pods."""
    return (
        f"--{family}pool-cidr={cidr}",
        f"--{family}pool-vxlan={mode.vxlan}",
        f"--{family}pool-nat-outgoing=true",
    )


def _bird(node: Host, bird: Bird) -> Process:
    """The BGP daemon, which upstream's calico-node has in its own container."""
    arguments = (
        f"--config={_BIRD_CONFIG.format(bird.name)}",
        f"--control={_BIRD_CONTROL.format(bird.name)}",
    )
    return Process(Role.NODE, node.name, bird.name, "kubewire.components.bgp.main:main", arguments)


def _first_configuration(node: Host, bird: Bird) -> File:
    """BIRD's configuration until confd has written its first one."""
    router_id = next((address for address in node.addresses if ":" not in address), "127.0.0.1")
    configuration = {
        "localAS": _AS_NUMBER,
        "routerID": router_id,
        "listen": [bird.listen],
        "families": [bird.family],
    }
    return File(node.name, _BIRD_CONFIG.format(bird.name), json.dumps(configuration).encode())


_NO_IPIP6 = "calico's IP-in-IP is for IPv4 alone; take vxlan or bgp for IPv6 pods"
NETWORK = PodNetwork(
    AddOn(
        name="calico",
        package=__package__,
        upstream="calico-node",
        summary="VXLAN, IP-in-IP, or routes that BGP distributes",
        backends=(
            Backend("vxlan", Mode(vxlan="Always")),
            Backend("vxlan-crosssubnet", Mode(vxlan="CrossSubnet")),
            Backend("bgp", Mode(bgp=True)),
            Backend("ipip", Mode(ipip="Always", bgp=True), requires=("ipip",), ipv4_only=_NO_IPIP6),
            Backend(
                "ipip-crosssubnet",
                Mode(ipip="CrossSubnet", bgp=True),
                requires=("ipip",),
                ipv4_only=_NO_IPIP6,
            ),
        ),
        install=_install,
        directories=("/etc/calico", "/var/lib/calico"),
    )
)
