"""The runtime's side of the Container Network Interface, spec 0.3.0 to 1.1.0; containerd uses
libcni.

network = cni.load_network("/etc/cni/net.d")
netns = "/run/netns/cni-UUID"
result = await cni.add(network, container_id, netns, "eth0", {"K8S_POD_NAME": "web"})
await cni.delete(network, container_id, netns, "eth0")
"""

from kubewire.components.kubelet.cni.cache import CachedAttachment, attachments
from kubewire.components.kubelet.cni.config import (
    ConfigError,
    NetworkConfigList,
    NoConfigError,
    PluginConfig,
    load_file,
    load_network,
)
from kubewire.components.kubelet.cni.invoke import Attachment
from kubewire.components.kubelet.cni.network import add, check, delete, gc, status, validate
from kubewire.components.kubelet.cni.types import DNS, CNIError, Interface, IPConfig, Result, Route

__all__ = [
    "DNS",
    "Attachment",
    "CNIError",
    "CachedAttachment",
    "ConfigError",
    "IPConfig",
    "Interface",
    "NetworkConfigList",
    "NoConfigError",
    "PluginConfig",
    "Result",
    "Route",
    "add",
    "attachments",
    "check",
    "delete",
    "gc",
    "load_file",
    "load_network",
    "status",
    "validate",
]
