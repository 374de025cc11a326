"""Installs the plugins, their kubeconfig and the conflist where the kubelet looks, as upstream's
install-cni does."""

from __future__ import annotations

import json
from collections.abc import Collection

from kubewire.components.networks.cni_plugin import pack

DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_BIN_DIR = "/opt/cni/bin"
CONFLIST_NAME = "10-calico.conflist"
KUBECONFIG_NAME = "calico-kubeconfig"
PLUGINS = ("calico", "calico-ipam")
_MODULES = tuple(
    f"kubewire.components.networks.calico.plugin.{name}"
    for name in ("block", "datastore", "ipam", "selector")
)


def plugin() -> bytes:
    """Both plugins, as one program."""
    return pack.pack("kubewire.components.networks.calico.plugin.cni", _MODULES)


def conflist(
    node: str, mtu: int, versions: Collection[int] = (4,), conf_dir: str = DEFAULT_CONF_DIR
) -> bytes:
    """cni_network_config of upstream's calico.yaml, with the node's name, MTU and IP versions
    filled in."""
    families = {f"assign_ipv{version}": str(version in versions).lower() for version in (4, 6)}
    calico = {
        "type": "calico",
        "log_level": "info",
        "datastore_type": "kubernetes",
        "nodename": node,
        "mtu": mtu,
        "ipam": {"type": "calico-ipam", **families},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": f"{conf_dir}/{KUBECONFIG_NAME}"},
    }
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    network = {
        "name": "k8s-pod-network",
        "cniVersion": "0.3.1",
        "plugins": [calico, portmap, bandwidth],
    }
    return (json.dumps(network, indent=2) + "\n").encode()


def plugin_kubeconfig(server: str, ca: str, token: str) -> bytes:
    """ca: base64 of the PEM text."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "local", "cluster": {"server": server, "certificate-authority-data": ca}}
        ],
        "users": [{"name": "calico", "user": {"token": token}}],
        "contexts": [{"name": "calico-context", "context": {"cluster": "local", "user": "calico"}}],
        "current-context": "calico-context",
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def install_plugins(bin_dir: str = DEFAULT_BIN_DIR) -> None:
    """Raises OSError."""
    pack.install(plugin(), PLUGINS, bin_dir)
