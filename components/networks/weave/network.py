"""The descriptor of Weave Net: weave-net on every node, and its password as a Secret if traffic is
encrypted."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.addon import (
    AddOn,
    Backend,
    Choice,
    Cluster,
    Host,
    Installation,
    Process,
    Role,
    account,
    kubeconfig_path,
    rule,
)
from kubewire.components.networks.podnetwork import IPv4Only, PodNetwork

AGENT = "weave-net"
#: Upstream's Secret for the password. The password of a lab, which has no uplink, is no secret.
_SECRET, _PASSWORD = "weave-passwd", "kubewire"


@dataclass(frozen=True)
class Mode:
    """fastdp: the kernel carries frames in VXLAN; otherwise weave-net carries them in datagrams
    (sleeve)."""

    fastdp: bool
    encrypted: bool = False


def _install(cluster: Cluster, choice: Choice[Mode]) -> Installation:
    return Installation(
        processes=tuple(_weave_net(node, cluster, choice.mode) for node in cluster.nodes),
        objects=(*_account(), *((_password(),) if choice.mode.encrypted else ())),
    )


def _weave_net(node: Host, cluster: Cluster, mode: Mode) -> Process:
    arguments = [
        f"--kubeconfig={kubeconfig_path(AGENT)}",
        f"--nickname={node.name}",
        f"--interface={node.interface.name}",
        f"--ipalloc-range={cluster.cluster_cidr}",
        f"--ipalloc-init=consensus={len(cluster.nodes)}",
    ]
    if cluster.policy_engine == "weave-npc":
        arguments.append("--expect-npc")
    if not mode.fastdp:
        arguments.append("--no-fastdp")
    if mode.encrypted:
        arguments.append(f"--password-secret={_SECRET}")
    user = "system:serviceaccount:kube-system:weave-net"
    return Process(Role.AGENT, node.name, AGENT, f"{__package__}.main:main", tuple(arguments), user)


def _account() -> tuple[Mapping[str, Any], ...]:
    """The account of weave-net with the rules of upstream's manifest. There the kubelet gives the
    password to the pod; here weave-net reads the Secret itself."""
    cluster = (
        rule("get list watch", "", "namespaces nodes pods"),
        rule("get list watch", "networking.k8s.io", "networkpolicies"),
        rule("patch update", "", "nodes/status"),
    )
    local = (
        rule("get update", "", "configmaps", AGENT),
        rule("create", "", "configmaps"),
        rule("get", "", "secrets", _SECRET),
    )
    return account("kube-system", AGENT, cluster, local)


def _password() -> Mapping[str, Any]:
    metadata = {"name": _SECRET, "namespace": "kube-system"}
    data = {_SECRET: base64.b64encode(_PASSWORD.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


NETWORK = PodNetwork(
    AddOn(
        name="weave",
        package=__package__,
        upstream="weave-net",
        summary="one VXLAN segment over all nodes, encrypted if wanted",
        backends=(
            Backend("vxlan", Mode(fastdp=True)),
            Backend("fastdp-encrypted", Mode(fastdp=True, encrypted=True), requires=("esp",)),
            Backend("sleeve", Mode(fastdp=False)),
            Backend("sleeve-encrypted", Mode(fastdp=False, encrypted=True)),
        ),
        install=_install,
        directories=("/var/lib/weave",),
    ),
    ipv4_only=IPv4Only("is IPv4 only, as upstream"),
)
