"""The plugins and 10-azure.conflist, as AKS installs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kubewire.components.kernel import files
from kubewire.components.networks.cni_plugin import pack

CONFLIST_NAME = "10-azure.conflist"
PLUGINS = ("azure-vnet", "azure-vnet-ipam")


def plugin() -> bytes:
    return pack.pack(
        "kubewire.components.networks.azure_cni.plugin.cni",
        ("kubewire.components.networks.azure_cni.plugin.state",),
    )


def conflist(subnet: str = "") -> bytes:
    """subnet: the node's podCIDR in overlay mode, else empty."""
    ipam: dict[str, Any] = {"type": "azure-vnet-ipam"}
    if subnet:
        ipam = {"mode": "v4overlay", "type": "azure-cns", "subnet": subnet}
    azure = {
        "type": "azure-vnet",
        "mode": "transparent",
        "ipsToRouteViaHost": ["169.254.20.10"],
        "ipam": ipam,
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    network = {"cniVersion": "0.3.0", "name": "azure", "plugins": [azure, portmap]}
    return (json.dumps(network, indent=2) + "\n").encode()


def install(subnet: str, conf_dir: str, bin_dir: str) -> None:
    """Raises OSError."""
    pack.install(plugin(), PLUGINS, bin_dir)
    files.replace(Path(conf_dir, CONFLIST_NAME), conflist(subnet), 0o644)
