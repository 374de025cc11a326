"""Put the plugins, their kubeconfig and the conflist where the kubelet looks: upstream's container install-cni."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path

DEFAULT_CONF_DIR, DEFAULT_BIN_DIR = "/etc/cni/net.d", "/opt/cni/bin"
CONFLIST_NAME, KUBECONFIG_NAME = "10-calico.conflist", "calico-kubeconfig"
PLUGINS = ("calico", "calico-ipam")
_SOURCES = Path(__file__).parent / "plugin"
_MAIN = """\
import os, sys
from components.calico.plugin.cni import main
code = main(sys.argv)
sys.stdout.flush()
os._exit(code)
"""


def plugin() -> bytes:
    """The program as one executable file: a first line with Debian's python3, and a zip archive behind it."""
    system = Path("/usr/bin/python3")
    interpreter = system if system.exists() else Path(sys.executable).resolve()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for package in ("components", "components/calico", "components/calico/plugin"):
            packed.writestr(f"{package}/__init__.py", "")
        for source in sorted(_SOURCES.glob("*.py")):
            if source.name != "__init__.py":
                packed.writestr(f"components/calico/plugin/{source.name}", source.read_text())
        packed.writestr("__main__.py", _MAIN)
    return f"#!{interpreter} -IS\n".encode() + archive.getvalue()


def conflist(node: str, mtu: int, versions: Collection[int] = (4,), conf_dir: str = DEFAULT_CONF_DIR) -> bytes:
    """cni_network_config of upstream's calico.yaml, with the node's name, MTU and IP versions filled in."""
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
    network = {"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [calico, portmap, bandwidth]}
    return (json.dumps(network, indent=2) + "\n").encode()


def plugin_kubeconfig(server: str, ca: str, token: str) -> bytes:
    """ca: base64 of the PEM text."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": "calico", "user": {"token": token}}],
        "contexts": [{"name": "calico-context", "context": {"cluster": "local", "user": "calico"}}],
        "current-context": "calico-context",
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def install_plugins(bin_dir: str = DEFAULT_BIN_DIR) -> None:
    """Raises OSError."""
    content = plugin()
    for name in PLUGINS:
        replace(Path(bin_dir, name), content, 0o755)


def replace(path: Path, content: bytes, mode: int) -> None:
    """The file as a whole or as it was before. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.rename(path)
