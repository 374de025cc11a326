"""Resources whose objects are not stored but computed when they are asked for: get and list only.

metrics.k8s.io answers from the kubelets' /stats/summary. A real cluster has metrics-server for it,
which asks every node every 15 seconds; here the nodes are asked when a client asks, so that a lab
in which nobody looks at metrics has no packets for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.connect import Connector
from kubewire.components.apiserver.http.requestinfo import RequestInfo
from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.spec import Column, KindSpec
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.registry.registry import Registry
from kubewire.components.apiserver.registry.tables import table
from kubewire.components.kubeapi.resources import KubeObject, Resource
from kubewire.components.kubeapi.selectors import FieldSelector, LabelSelector, SelectorError

#: The period over which kubelets compute rates, and how long one may take to answer.
_WINDOW = "10s"
_PATIENCE = 5.0

#: Makes the objects of a namespace, or of all; the name limits the work if there is one.
Compute = Callable[[str, str], Awaitable[list[KubeObject]]]


@dataclass(frozen=True)
class Computed:
    """The computed resources, by group, version and plural."""

    registry: Registry
    connector: Connector

    def find(self, info: RequestInfo) -> Compute | None:
        makers: dict[tuple[str, str, str], Compute] = {
            ("metrics.k8s.io", "v1beta1", "nodes"): self._node_metrics,
            ("metrics.k8s.io", "v1beta1", "pods"): self._pod_metrics,
            ("", "v1", "componentstatuses"): self._component_statuses,
        }
        return makers.get((info.group, info.version, info.plural))

    async def answer(
        self,
        info: RequestInfo,
        kind: str,
        query: Mapping[str, str],
    ) -> KubeObject:
        """The object or the list; raises StatusError."""
        compute = self.find(info)
        if compute is None or info.subresource:
            raise status.no_such_path()
        if info.verb not in ("get", "list"):
            raise status.method_not_allowed()
        try:
            labels = LabelSelector.parse(query.get("labelSelector", ""))
            fields = FieldSelector.parse(query.get("fieldSelector", ""))
        except SelectorError as error:
            raise status.bad_request(str(error)) from error
        found = await compute(info.namespace, info.name)
        version = f"{info.group}/{info.version}" if info.group else info.version
        objects = [{"kind": kind, "apiVersion": version, **item} for item in found]
        if info.name:
            if not objects:
                raise status.not_found(info.group, info.plural, info.name)
            return objects[0]
        chosen = [item for item in objects if _is_selected(item, labels, fields)]
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": chosen}

    async def _summaries(self, nodes: Iterable[str]) -> dict[str, KubeObject]:
        """What the kubelets say, without those that do not answer."""
        names = list(nodes)
        asked = (self._summary(name) for name in names)
        answers = await asyncio.gather(*asked)
        return {name: answer for name, answer in zip(names, answers, strict=True) if answer}

    async def _summary(self, node: str) -> KubeObject | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self.connector.kubelet_json(node, "/stats/summary")
        except (status.StatusError, OSError, ValueError, TimeoutError):
            return None

    async def _node_metrics(self, namespace: str, name: str) -> list[KubeObject]:
        stored = [
            item for item in self.registry.store.items("nodes") if name in ("", item.key.name)
        ]
        summaries = await self._summaries(item.key.name for item in stored)
        return [
            node_metrics(item.obj, summaries[item.key.name])
            for item in stored
            if item.key.name in summaries
        ]

    async def _pod_metrics(self, namespace: str, name: str) -> list[KubeObject]:
        pods = [
            item.obj
            for item in self.registry.store.items("pods")
            if namespace in ("", item.key.namespace) and name in ("", item.key.name)
        ]
        running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
        nodes = {pod["spec"].get("nodeName") or "" for pod in running}
        summaries = await self._summaries(sorted(nodes - {""}))
        by_uid = {
            pod["podRef"]["uid"]: pod for summary in summaries.values() for pod in summary["pods"]
        }
        return [
            pod_metrics(pod, by_uid[pod["metadata"]["uid"]])
            for pod in running
            if by_uid.get(pod["metadata"]["uid"], {}).get("containers")
        ]

    async def _component_statuses(self, namespace: str, name: str) -> list[KubeObject]:
        ports = {"scheduler": 10259, "controller-manager": 10257}
        names = [item for item in (*ports, "etcd-0") if name in ("", item)]
        errors = [await _health(ports[item]) if item in ports else "" for item in names]
        return [component_status(item, why) for item, why in zip(names, errors, strict=True)]


def _component_row(obj: KubeObject, now: datetime) -> list[Any]:
    healthy = next((item for item in obj["conditions"] if item["type"] == "Healthy"), None)
    if healthy is None:
        return [obj["metadata"]["name"], "Unknown", "", ""]
    state = "Healthy" if healthy["status"] == "True" else "Unhealthy"
    return [obj["metadata"]["name"], state, healthy.get("message", ""), healthy.get("error", "")]


#: How they are printed; those of metrics.k8s.io are not, and kubectl prints them itself.
COMPONENT_STATUSES = Served(
    KindSpec(
        resource=Resource("", "v1", "componentstatuses", "ComponentStatus", namespaced=False),
        singular="componentstatus",
        columns=(
            cells.NAME,
            Column("Status", "string", "", "Whether the component is healthy."),
            Column("Message", "string", "", "What the component answers."),
            Column("Error", "string", "", "Why the component could not be asked."),
        ),
        row=_component_row,
    ),
    "v1",
)


def table_of(answer: KubeObject, version: str, include: str) -> KubeObject:
    """The Table of a ComponentStatus or a list of them."""
    objects = answer.get("items", [answer])
    return table(COMPONENT_STATUSES, objects, {}, version, include)


async def _health(port: int) -> str:
    """Why the component of this host does not answer /healthz with ok, or ""."""
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return f'Get "http://127.0.0.1:{port}/healthz": {error or "timed out"}'
    return "" if b" 200" in line else line.decode(errors="replace").strip()


def component_status(name: str, error: str) -> KubeObject:
    healthy = {"type": "Healthy", "status": "True", "message": "ok"}
    broken = {"type": "Healthy", "status": "False", "message": error}
    metadata = {"name": name, "creationTimestamp": None}
    return {"metadata": metadata, "conditions": [broken if error else healthy]}


def node_metrics(node: KubeObject, summary: KubeObject) -> KubeObject:
    metadata = {key: node["metadata"].get(key) for key in ("name", "labels")}
    figures = summary["node"]
    return _metrics(metadata, figures) | {"usage": usage(figures)}


def pod_metrics(pod: KubeObject, figures: KubeObject) -> KubeObject:
    keys = ("name", "namespace", "labels")
    metadata = {key: pod["metadata"][key] for key in keys if key in pod["metadata"]}
    containers = [
        {"name": container["name"], "usage": usage(container)}
        for container in figures["containers"]
        if "cpu" in container
    ]
    return _metrics(metadata, figures) | {"containers": containers}


def _metrics(metadata: dict[str, Any], figures: KubeObject) -> KubeObject:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stamp = (figures.get("cpu") or {}).get("time") or now
    return {
        "metadata": {**metadata, "creationTimestamp": now},
        "timestamp": stamp,
        "window": _WINDOW,
    }


def usage(figures: KubeObject) -> dict[str, str]:
    """Nanocores and kibibytes, as metrics-server writes them."""
    cores = (figures.get("cpu") or {}).get("usageNanoCores", 0)
    memory = (figures.get("memory") or {}).get("workingSetBytes", 0)
    return {"cpu": f"{cores}n" if cores else "0", "memory": f"{memory // 1024}Ki"}


def _is_selected(obj: KubeObject, labels: LabelSelector, fields: FieldSelector) -> bool:
    metadata = obj["metadata"]
    known = {f"metadata.{key}": metadata.get(key, "") for key in ("name", "namespace")}
    return labels.matches(metadata.get("labels") or {}) and fields.matches(known)
