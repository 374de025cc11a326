"""/run/flannel/subnet.env: how flanneld tells the CNI plugin this node's subnet and MTU."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

DEFAULT_PATH = "/run/flannel/subnet.env"


def render(network: ipaddress.IPv4Network, subnet: ipaddress.IPv4Network, mtu: int, ip_masq: bool) -> str:
    """FLANNEL_SUBNET is the subnet's first address, the bridge's, as upstream writes it."""
    gateway = subnet.network_address + 1
    return (
        f"FLANNEL_NETWORK={network}\n"
        f"FLANNEL_SUBNET={gateway}/{subnet.prefixlen}\n"
        f"FLANNEL_MTU={mtu}\n"
        f"FLANNEL_IPMASQ={str(ip_masq).lower()}\n"
    )


def replace(path: str | Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old text or the new, never half of it. Raises OSError."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot and no known suffix: who reads the directory (the kubelet, /etc/cni/net.d) passes it over.
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.chmod(mode)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
