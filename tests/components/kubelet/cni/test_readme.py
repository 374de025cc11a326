"""The example of components/kubelet/cni/README.md runs as it stands."""

import json
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.scratch import isolated

pytestmark = pytest.mark.packet

README = Path("components/kubelet/cni/README.md").read_text()


def example():
    """The example with this sandbox's paths; add's result is looked at before delete takes it back."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (text,) = (block for block in blocks if "cni.add(" in block)
    text = text.replace("/etc/cni/net.d", "/run/net.d").replace("/opt/cni/bin", "/usr/lib/cni")
    return text.replace("await cni.delete(", "seen.append(result.ips[0].ip)\nawait cni.delete(")


def run():
    subprocess.run(["ip", "netns", "add", "cni-UUID"], check=True)
    Path("/run/net.d").mkdir()
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.5"}]]}
    plugins = [
        {"type": "bridge", "isGateway": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    conflist = {"name": "net", "cniVersion": "1.0.0", "plugins": plugins}
    Path("/run/net.d/10-net.conflist").write_text(json.dumps(conflist))
    scope = {"container_id": "c1", "seen": []}
    body = textwrap.indent(example(), "    ")
    exec(f"import asyncio\nasync def main():\n{body}\nasyncio.run(main())", scope)
    return scope["seen"], [path.name for path in Path("/var/lib/cni/networks/net").glob("10.*")]


def test_the_example_adds_and_deletes_a_pod():
    assert isolated(run) == (["10.244.1.5"], [])
