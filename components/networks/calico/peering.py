"""confd's part: makes the BIRD of one node follow nodes, pools, blocks and the BGP objects."""

from __future__ import annotations

import base64
from asyncio import TaskGroup
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.informer import Informer, wait_synced
from kubewire.components.kubeapi.resources import (
    ENDPOINTSLICES,
    SECRETS,
    SERVICES,
    KubeObject,
    Resource,
)
from kubewire.components.networks.calico import bird, confd, services
from kubewire.components.networks.calico.confd import State
from kubewire.components.networks.calico.dataplane import Node
from kubewire.components.networks.calico.manifests import GROUP, NAMESPACE

BGPPEERS: Resource[KubeObject] = Resource(GROUP, "v1", "bgppeers", "BGPPeer", namespaced=False)
BGPCONFIGURATIONS: Resource[KubeObject] = Resource(
    GROUP, "v1", "bgpconfigurations", "BGPConfiguration", namespaced=False
)
BGPFILTERS: Resource[KubeObject] = Resource(
    GROUP, "v1", "bgpfilters", "BGPFilter", namespaced=False
)
Handler = Callable[[KubeObject | None, KubeObject | None], None]


class Peering:
    """changed is called when a BGP object, or a Service while Services are announced, changes."""

    def __init__(self, client: Client, changed: Handler) -> None:
        self._client = client
        self._changed = changed
        self._peers, self._configurations, self._filters = (
            Informer(client, kind, handler=changed)
            for kind in (BGPPEERS, BGPCONFIGURATIONS, BGPFILTERS)
        )
        self._announced: list[Informer[Any]] = []
        self._configured: dict[int, dict[str, Any]] = {}

    async def start(self, tasks: TaskGroup) -> None:
        """Returns when the existing objects are read."""
        self._tasks = tasks
        informers = (self._peers, self._configurations, self._filters)
        for informer in informers:
            tasks.create_task(informer.run())
        await wait_synced(*informers)

    async def follow(
        self,
        own: Node,
        router_id: str,
        nodes: Mapping[str, Node],
        pools: Iterable[KubeObject],
        blocks: Iterable[KubeObject],
    ) -> None:
        """Configures BIRD for the family of own. Raises NotConfigured, Refused and Unreadable,
        which a retry may clear, OSError and ApiError."""
        configuration = (self._configurations.get("default") or {}).get("spec") or {}
        own = nodes.get(own.name, own)
        version = own.family.version
        state = State(
            own=own,
            router_id=router_id,
            nodes=nodes,
            pools=list(pools),
            blocks=list(blocks),
            peers=list(self._peers.store.values()),
            filters={rule["metadata"]["name"]: rule for rule in self._filters.store.values()},
            configuration=configuration,
            secrets=await self._passwords(
                [configuration, *(peer["spec"] for peer in self._peers.store.values())],
            ),
            services=await self._services(configuration, own),
        )
        document = confd.render(state)
        if document != self._configured.get(version):
            self._configured.pop(version, None)
            await bird.configure(document, version)
            self._configured[version] = document

    async def _passwords(self, specs: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
        """The passwords in the referenced Secrets of kube-system. A missing Secret is left out."""
        passwords: dict[tuple[str, str], str] = {}
        for spec in specs:
            reference = ((spec.get("password") or spec.get("nodeMeshPassword")) or {}).get(
                "secretKeyRef",
            )
            if not reference:
                continue
            try:
                secret = await self._client.get(SECRETS, reference["name"], NAMESPACE)
            except ApiError as error:
                if error.status != 404:
                    raise
                continue
            if text := (secret.get("data") or {}).get(reference["key"]):
                passwords[reference["name"], reference["key"]] = base64.b64decode(text).decode()
        return passwords

    async def _services(self, configuration: Mapping[str, Any], own: Node) -> list[str]:
        """The prefixes of Services. Services and EndpointSlices are watched once any are
        announced."""
        if not services.wanted(configuration):
            return []
        if not self._announced:
            self._announced = [
                Informer(self._client, kind, handler=self._changed)
                for kind in (SERVICES, ENDPOINTSLICES)
            ]
            for informer in self._announced:
                self._tasks.create_task(informer.run())
        await wait_synced(*self._announced)
        all_services, slices = (list(informer.store.values()) for informer in self._announced)
        with confd.reading("serviceClusterIPs, serviceExternalIPs or serviceLoadBalancerIPs"):
            return services.announced(
                configuration,
                all_services,
                slices,
                own.name,
                dict(own.labels),
            )
