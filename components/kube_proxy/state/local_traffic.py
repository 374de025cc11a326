"""Telling this node's pods from everybody else, and which addresses take NodePort traffic
(--detect-local-mode, --nodeport-addresses). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubewire.components.kube_proxy.configuration.config import KubeProxyConfiguration
from kubewire.components.kube_proxy.state.model import IPV4, IPV6, Node
from kubewire.components.kube_proxy.state.objects import family_of, in_range


@dataclass(frozen=True)
class LocalSource:
    """How packets of this node's pods are told: by source range, by the interface they come in by,
    or by the first letters of its name. One is set at most; none (false) when there is no way to
    tell."""

    cidr: str = ""
    interface: str = ""
    interface_prefix: str = ""

    def __bool__(self) -> bool:
        return bool(self.cidr or self.interface or self.interface_prefix)


#: There is no way to tell.
UNTOLD = LocalSource()


def local_source(config: KubeProxyConfiguration, family: str, node: Node) -> LocalSource:
    """Nothing when the mode gives nothing for the family."""
    match config.detect_local_mode:
        case "ClusterCIDR":
            return _source(config.cluster_cidr.split(","), family)
        case "NodeCIDR":
            return _source(node.pod_cidrs, family)
        case "BridgeInterface":
            return LocalSource(interface=config.detect_local.bridge_interface)
        case "InterfaceNamePrefix":
            return LocalSource(interface_prefix=config.detect_local.interface_name_prefix)
    return UNTOLD


def _source(cidrs: Sequence[str], family: str) -> LocalSource:
    return LocalSource(
        next((cidr.strip() for cidr in cidrs if cidr.strip() and family_of(cidr) == family), "")
    )


def node_port_ips(
    configured: Sequence[str],
    family: str,
    node: Node,
    addresses: Callable[[str], Sequence[str]],
    *,
    loopback: bool,
) -> tuple[str, ...] | None:
    """None: every local address. "primary" stands for the node's own address of the family."""
    everything = "0.0.0.0/0" if family == IPV4 else "::/0"
    if not configured or everything in configured:
        return None
    if list(configured) == ["primary"]:
        return tuple(ip for ip in node.ips if family_of(ip) == family)
    cidrs = [cidr for cidr in configured if cidr != "primary" and family_of(cidr) == family]
    found = [ip for ip in addresses(family) if any(in_range(ip, cidr) for cidr in cidrs)]
    return tuple(
        ip
        for ip in found
        if loopback or not in_range(ip, "::1/128" if family == IPV6 else "127.0.0.0/8")
    )
