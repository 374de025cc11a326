"""Installs the CNI configuration and the plugin where the kubelet looks for them. Upstream's
manifest does this with two init containers (install-cni, install-cni-plugin)."""

from __future__ import annotations

import json
from pathlib import Path

from kubewire.components.kernel.files import replace
from kubewire.components.networks.cni_plugin import pack

DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_BIN_DIR = "/opt/cni/bin"
CONFLIST_NAME = "10-flannel.conflist"
PLUGINS = ("flannel",)
#: The bridge plugin's default.
DEFAULT_BRIDGE = "cni0"

#: The cni-conf.json of upstream's kube-flannel.yml.
DEFAULT_CONFLIST = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def conflist(path: str | Path) -> bytes:
    """The administrator's cni-conf.json if it exists, else upstream's default. Raises OSError."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return (json.dumps(DEFAULT_CONFLIST, indent=2) + "\n").encode()


def bridge(conflist: bytes) -> str:
    """The bridge that the configuration names; "" if another plugin connects the pods."""
    for entry in json.loads(conflist).get("plugins") or ():
        if entry.get("type") == "flannel":
            delegate = entry.get("delegate") or {}
            is_bridge = delegate.get("type", "bridge") == "bridge"
            return str(delegate.get("bridge") or DEFAULT_BRIDGE) if is_bridge else ""
    return ""


def plugin() -> bytes:
    """The plugin's executable file."""
    return pack.pack("kubewire.components.networks.flannel.cni_plugin")


def install_plugin(bin_dir: str | Path = DEFAULT_BIN_DIR) -> None:
    """Raises OSError."""
    pack.install(plugin(), PLUGINS, str(bin_dir))


def install_conflist(content: bytes, conf_dir: str | Path = DEFAULT_CONF_DIR) -> None:
    """After this the kubelet reports the node's network as ready. Raises OSError."""
    replace(Path(conf_dir, CONFLIST_NAME), content)
