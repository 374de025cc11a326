"""The README's examples are run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from kubewire.components.kubelet.configuration import Settings, read_configuration
from tests.components.kubelet.kubelet_node import Node, is_ready, on_node

README = Path(__file__).resolve().parents[3] / "components/kubelet/README.md"


def blocks(kind: str) -> list[dict[str, Any]]:
    found = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)]
    return [block for block in found if block["kind"] == kind]


def test_the_configuration_is_valid_and_shows_the_defaults() -> None:
    (block,) = blocks("KubeletConfiguration")
    found = Settings("n", **read_configuration(yaml.safe_dump(block), "README.md"))
    defaults = Settings("n")
    for name in ("max_pods", "sync_frequency", "node_lease_duration", "container_log_max_size", "backoff"):
        assert getattr(found, name) == getattr(defaults, name), name


@on_node
async def test_the_pod_serves_its_page(node: Node) -> None:
    await node.ready_node()
    (pod,) = blocks("Pod")
    pod["metadata"]["namespace"] = "default"
    await node.create(pod)
    found = await node.pod_where("readme", is_ready, "is ready")
    ip = found["status"]["podIP"]
    assert await node.output(found, "web", "busybox", "wget", "-qO-", f"http://{ip}:8080/") == "from readme\n"
