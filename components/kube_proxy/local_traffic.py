"""Telling this node's pods from everybody else, and which addresses take NodePort traffic
(--detect-local-mode, --nodeport-addresses). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from components.kube_proxy.config import KubeProxyConfiguration
from components.kube_proxy.model import IPV4, IPV6, Node
from components.kube_proxy.objects import family_of, in_range


def local_source(config: KubeProxyConfiguration, family: str, node: Node) -> str:
    """iptables arguments that match packets of local pods; "" when the mode gives nothing for the family."""
    match config.detect_local_mode:
        case "ClusterCIDR":
            return _source(config.cluster_cidr.split(","), family)
        case "NodeCIDR":
            return _source(node.pod_cidrs, family)
        case "BridgeInterface":
            return f"-i {config.detect_local.bridge_interface}"
        case "InterfaceNamePrefix":
            return f"-i {config.detect_local.interface_name_prefix}+"
    return ""


def _source(cidrs: Sequence[str], family: str) -> str:
    return next((f"-s {cidr.strip()}" for cidr in cidrs if cidr.strip() and family_of(cidr) == family), "")


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
    return tuple(ip for ip in found if loopback or not in_range(ip, "::1/128" if family == IPV6 else "127.0.0.0/8"))
