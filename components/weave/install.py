"""Put the plugins and the conflist where the kubelet looks: `weave setup-cni`."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path

DEFAULT_CONF_DIR, DEFAULT_BIN_DIR = "/etc/cni/net.d", "/opt/cni/bin"
CONFLIST_NAME = "10-weave.conflist"
PLUGINS = ("weave-net", "weave-ipam")
_SOURCES = Path(__file__).parent / "plugin"
_MAIN = """\
import os, sys
from components.weave.plugin.cni import main
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
        for package in ("components", "components/weave", "components/weave/plugin"):
            packed.writestr(f"{package}/__init__.py", "")
        for source in sorted(_SOURCES.glob("*.py")):
            if source.name != "__init__.py":
                packed.writestr(f"components/weave/plugin/{source.name}", source.read_text())
        packed.writestr("__main__.py", _MAIN)
    return f"#!{interpreter} -IS\n".encode() + archive.getvalue()


def conflist(mtu: int, http_addr: str = "127.0.0.1:6784") -> bytes:
    """What the weave script writes; MTU and HTTP address only where they are not what the plugin assumes."""
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
