"""Renders the objects that kubeadm applies for CoreDNS. The only I/O is reading coredns.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parent / "coredns.yaml"


def render(
    cluster_domain: str,
    dns_ip: str,
    replicas: int = 2,
    corefile: str = "",
) -> list[dict[str, Any]]:
    """Returns ServiceAccount, RBAC, ConfigMap, Deployment and Service in the order to apply them.

    dns_ip: the kube-dns Service's clusterIP, by convention the tenth address of the Service range.
    corefile: the Corefile to use instead of kubeadm's.
    """
    text = TEMPLATE.read_text()
    for mark, value in (
        ("CLUSTER_DOMAIN", cluster_domain),
        ("DNS_IP", dns_ip),
        ("REPLICAS", str(replicas)),
    ):
        text = text.replace(f"${mark}$", value)
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    for obj in objects:
        if corefile and obj["kind"] == "ConfigMap":
            obj["data"] = {"Corefile": corefile}
    return objects
