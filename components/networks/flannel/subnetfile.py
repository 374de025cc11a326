"""/run/flannel/subnet.env: the file in which flanneld gives the CNI plugin this node's subnet and
MTU."""

from __future__ import annotations

from collections.abc import Iterable

from kubewire.components.networks.flannel.netconf import Network

DEFAULT_PATH = "/run/flannel/subnet.env"


def render(ranges: Iterable[tuple[Network, Network]], mtu: int, ip_masq: bool) -> str:
    """ranges: (network, this node's subnet of it) for each family.

    FLANNEL_SUBNET is the subnet's first address, that of the bridge, as upstream writes it.
    """
    lines = []
    for network, subnet in ranges:
        family = "FLANNEL_" if network.version == 4 else "FLANNEL_IPV6_"
        lines.append(f"{family}NETWORK={network}")
        lines.append(f"{family}SUBNET={subnet.network_address + 1}/{subnet.prefixlen}")
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={str(ip_masq).lower()}"]
    return "".join(f"{line}\n" for line in lines)
