"""What bring-up puts into the cluster through its API, and how it knows that the cluster is ready.

Forked onto the control-plane node; notes on progress go to stdout, a line each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.resources import (
    ENDPOINTSLICES,
    NODES,
    SERVICEACCOUNTS,
    KubeObject,
    Resource,
)
from kubewire.lab.bringup import kubeadm, standard_class
from kubewire.lab.bringup.components import ClusterAddresses
from kubewire.lab.bringup.manifests import resource_of
from kubewire.lab.bringup.networks import installation_of
from kubewire.lab.bringup.rollout import is_true
from kubewire.scenarios.engine.file.spec import LabSpec

Note = Callable[[str], None]


def main(argv: list[str]) -> int:
    """argv: kubeconfig, lab file as JSON. Returns 0 when the cluster is ready."""
    spec = LabSpec.parse(json.loads(Path(argv[1]).read_text()), argv[1])
    asyncio.run(install_and_wait(argv[0], spec, lambda text: print(text, flush=True)))
    return 0


async def install_and_wait(kubeconfig: str, spec: LabSpec, note: Note) -> None:
    """Install cluster DNS; return when every node is Ready, the default service account exists and
    DNS has endpoints, each as far as the lab file lets it come to that.

    Readiness is what the API shows: node conditions and ready endpoints, not that we have started
    something.
    """
    async with Client.from_kubeconfig(kubeconfig, user_agent="kubewire-up") as client:
        await _answering(client)
        for obj in installation_of(spec, spec.plan).objects:
            await apply(client, dict(obj))
        for obj in (*standard_class.objects(), *kubeadm.objects(client.credentials)):
            await apply(client, obj)
        if spec.dns.replicas:
            await _install_dns(client, spec)
        await _mark_control_planes(client, spec)
        nodes = len(spec.nodes)
        if spec.cni.network.connects_pods:
            await _until(client, NODES, None, lambda items: _nodes_ready(items, nodes, note))
        await _until(
            client,
            SERVICEACCOUNTS,
            "default",
            lambda items: any(i["metadata"]["name"] == "default" for i in items),
        )
        if spec.has_working_dns:
            await _until(
                client, ENDPOINTSLICES, "kube-system", lambda items: _dns_ready(items, note)
            )


async def _answering(client: Client) -> None:
    while True:
        try:
            await client.request("GET", "/readyz", timeout=2.0)
            return
        except ApiError:
            await asyncio.sleep(0.01)


async def _mark_control_planes(client: Client, spec: LabSpec) -> None:
    """Set the role label, as kubeadm does: a kubelet may not give its own node a role."""
    names = {node.name for node in spec.plan.nodes if node.role == "control-plane"}
    await _until(
        client, NODES, None, lambda items: names <= {item["metadata"]["name"] for item in items}
    )
    labels = {"node-role.kubernetes.io/control-plane": ""}
    for name in names:
        await client.patch(NODES, name, {"metadata": {"labels": labels}})


async def _install_dns(client: Client, spec: LabSpec) -> None:
    from kubewire.components.coredns import manifests

    dns_ip = ClusterAddresses.of(spec.network.serviceCIDR).dns_service
    for obj in manifests.render(
        spec.network.clusterDomain, dns_ip, spec.dns.replicas, spec.dns.corefile
    ):
        await apply(client, obj)


async def apply(client: Client, obj: KubeObject) -> None:
    """Create an object of a kind whose resource name is found by discovery; one that exists is left
    alone."""
    resource = await resource_of(client, obj)
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


async def _until(
    client: Client,
    resource: Resource[Any],
    namespace: str | None,
    done: Callable[[list[KubeObject]], bool],
) -> None:
    """List and watch until done says so of what is there."""
    while True:
        try:
            listed = await client.list(resource, namespace)
            items = {
                (i["metadata"].get("namespace"), i["metadata"]["name"]): i for i in listed.items
            }
            if done(list(items.values())):
                return
            async for event in client.watch(
                resource, namespace, resource_version=listed.resource_version
            ):
                key = (
                    event.object["metadata"].get("namespace"),
                    event.object["metadata"].get("name"),
                )
                if event.type == "BOOKMARK":
                    continue
                if event.type == "DELETED":
                    items.pop(key, None)
                else:
                    items[key] = event.object
                if done(list(items.values())):
                    return
        except ApiUnavailable:
            await asyncio.sleep(0.05)


def _nodes_ready(items: list[KubeObject], wanted: int, note: Note) -> bool:
    lacking = sorted(item["metadata"]["name"] for item in items if not is_true(item, "Ready"))
    ready = len(items) - len(lacking)
    note(f"{ready} of {wanted} nodes Ready" + (f", not {', '.join(lacking)}" if lacking else ""))
    return ready >= wanted


def _dns_ready(items: list[KubeObject], note: Note) -> bool:
    ready: int = sum(
        bool(endpoint.get("conditions", {}).get("ready"))
        for item in items
        if item["metadata"].get("labels", {}).get("kubernetes.io/service-name") == "kube-dns"
        for endpoint in item.get("endpoints") or ()
    )
    note(f"{ready} DNS servers ready")
    return ready > 0
