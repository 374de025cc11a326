"""Installs the plugins and the conflist where the kubelet looks, as `weave setup-cni` does."""

from __future__ import annotations

import json

from kubewire.components.networks.cni_plugin import pack

DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_BIN_DIR = "/opt/cni/bin"
CONFLIST_NAME = "10-weave.conflist"
PLUGINS = ("weave-net", "weave-ipam")


def plugin() -> bytes:
    """Both plugins, as one program."""
    return pack.pack(
        "kubewire.components.networks.weave.plugin.cni",
        ("kubewire.components.networks.weave.plugin.client",),
    )


def conflist(mtu: int, http_addr: str = "127.0.0.1:6784") -> bytes:
    """The weave script's conflist. MTU and HTTP address are written only if they differ from the
    plugin's defaults."""
    weave: dict[str, object] = {"name": "weave", "type": "weave-net", "hairpinMode": True}
    if mtu != 1376:
        weave["mtu"] = mtu
    if http_addr != "127.0.0.1:6784":
        weave["httpAddr"] = http_addr
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    network = {"cniVersion": "0.3.0", "name": "weave", "plugins": [weave, portmap]}
    return (json.dumps(network, indent=4) + "\n").encode()


def install_plugins(bin_dir: str = DEFAULT_BIN_DIR) -> None:
    """Raises OSError."""
    pack.install(plugin(), PLUGINS, bin_dir)
