"""The services that all pod workers of a node share, passed as one value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubelet.configuration import Settings
from kubewire.components.kubelet.downward import NodeFacts
from kubewire.components.kubelet.images.pulls import ImagePuller
from kubewire.components.kubelet.metrics import Metrics
from kubewire.components.kubelet.objects import ReferencedObjects
from kubewire.components.kubelet.pod.network import PodNetwork
from kubewire.components.kubelet.resolvconf import ResolverConfig
from kubewire.components.kubelet.status.writer import StatusWriter
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.tokens import TokenCache
from kubewire.components.runtime.api import AsyncRuntimeClient

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, Service
    from kubewire.components.kubelet.pod.admission import Rejection


class Recorder(Protocol):
    """Records events."""

    def event(
        self,
        obj: Mapping[str, Any],
        event_type: str,
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None: ...


@dataclass(frozen=True)
class NodeServices:
    """The services of a kubelet. services(): all Services that the node knows. pid: the kubelet's,
    as a process in the node's namespaces. admit(): why the node cannot take a pod, or None."""

    settings: Settings
    facts: NodeFacts
    resolver: ResolverConfig
    pid: int
    runtime: AsyncRuntimeClient
    network: PodNetwork
    images: ImagePuller
    objects: ReferencedObjects
    tokens: TokenCache
    services: Callable[[], Iterable[Service]]
    services_ready: asyncio.Event
    recorder: Recorder
    status: StatusWriter
    client: Client
    session: Callable[[], aiohttp.ClientSession]
    directories: Directories
    metrics: Metrics
    admit: Callable[[Pod], Awaitable[Rejection | None]]
    #: Limits how many sandboxes and containers start at the same time.
    start_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(5))
