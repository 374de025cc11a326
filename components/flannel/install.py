"""Put the CNI configuration and plugin where the kubelet looks. Upstream's manifest does this with two init
containers (install-cni, install-cni-plugin)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from components.flannel.subnetfile import replace

DEFAULT_CONF_DIR = "/etc/cni/net.d"
DEFAULT_BIN_DIR = "/opt/cni/bin"
CONFLIST_NAME = "10-flannel.conflist"
PLUGIN_NAME = "flannel"
_PLUGIN_SOURCE = Path(__file__).with_name("cni_plugin.py")

#: cni-conf.json of upstream's kube-flannel.yml.
DEFAULT_CONFLIST = {
    "name": "cbr0",
    "cniVersion": "0.3.1",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def conflist(path: str | Path) -> bytes:
    """The administrator's cni-conf.json when there is one, else upstream's default. Raises OSError."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return (json.dumps(DEFAULT_CONFLIST, indent=2) + "\n").encode()


def interpreter() -> str:
    """Debian's python3: the plugin wants none of our packages, and starts faster outside a virtual environment."""
    system = Path("/usr/bin/python3")
    return str(system if system.exists() else Path(sys.executable).resolve())


def plugin() -> bytes:
    """The plugin's executable text, with this machine's interpreter."""
    _, _, body = _PLUGIN_SOURCE.read_text().partition("\n")
    return f"#!{interpreter()} -IS\n{body}".encode()


def install_plugin(bin_dir: str | Path = DEFAULT_BIN_DIR) -> None:
    """Raises OSError."""
    replace(Path(bin_dir, PLUGIN_NAME), plugin(), mode=0o755)


def install_conflist(content: bytes, conf_dir: str | Path = DEFAULT_CONF_DIR) -> None:
    """From now on the kubelet reports the node's network as ready. Raises OSError."""
    replace(Path(conf_dir, CONFLIST_NAME), content)
