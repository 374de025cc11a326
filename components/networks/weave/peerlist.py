"""kube-utils: the ConfigMap weave-net lists the peers; what those of removed nodes had is taken over.

By an annotation the first one says that it does it; the API server's resourceVersions let only one do so.
(github.com/weaveworks/weave, prog/kube-utils: peerlist.go, annotations.go, reclaimRemovedPeers in main.go.)
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS, KubeObject

log = logging.getLogger("weave-net")

NAME = "weave-net"
NAMESPACE = "kube-system"
PREFIX = "kube-peers.weave.works/"
PEERS = PREFIX + "peers"
_TRIES = 20


def peers_of(configmap: KubeObject) -> dict[str, str]:
    """Peer's name -> node's name."""
    listed = json.loads(
        (configmap["metadata"].get("annotations") or {}).get(PEERS, '{"Peers": []}'),
    )
    return {peer["PeerName"]: peer["NodeName"] for peer in listed["Peers"] or []}


def with_peers(configmap: KubeObject, peers: dict[str, str]) -> KubeObject:
    listed = {"Peers": [{"PeerName": peer, "NodeName": node} for peer, node in peers.items()]}
    return annotated(configmap, {PEERS: json.dumps(listed)})


def annotated(configmap: KubeObject, changes: dict[str, str | None]) -> KubeObject:
    """None removes one."""
    annotations = (configmap["metadata"].get("annotations") or {}) | changes
    kept = {key: value for key, value in annotations.items() if value is not None}
    return {**configmap, "metadata": {**configmap["metadata"], "annotations": kept}}


def key_of(peer: str) -> str:
    """An annotation's name for a peer: what it may not have is replaced."""
    return PREFIX + re.sub(r"[^A-Za-z0-9._/-]", "_", peer)


class PeerList:
    """Raises ApiError throughout."""

    def __init__(self, client: Client, own_peer: str, own_node: str) -> None:
        self._client = client
        self._own_peer = own_peer
        self._own_node = own_node

    async def is_listed(self) -> bool:
        """False for a peer that was taken over: what it has saved is not its own any more. A list without anybody (the
        ConfigMap was deleted) says nothing about us, and pods may live on what was saved."""
        peers = peers_of(await self._read())
        return not peers or self._own_peer in peers

    async def add_own(self) -> None:
        def changed(configmap: KubeObject) -> KubeObject:
            return with_peers(configmap, peers_of(configmap) | {self._own_peer: self._own_node})

        await self._update(changed)

    async def reclaim(self, nodes_now: Callable[[], Awaitable[set[str]]], take_over: Callable[[str], int]) -> None:
        """Peers whose node is not there any more. take_over: rmpeer. Nodes are asked for after the list is read: a peer
        is listed when its node is there."""
        configmap = await self._read()
        nodes = await nodes_now()
        for peer, node in peers_of(configmap).items():
            replaced = node == self._own_node and peer != self._own_peer
            if peer != self._own_peer and (node not in nodes or replaced) and await self._is_ours_to_do(peer):
                log.info(
                    "[kube-peers] rmpeer of %s: %d IPs taken over from %s",
                    peer,
                    take_over(peer),
                    peer,
                )
                await self._forget(peer)

    async def _is_ours_to_do(self, peer: str) -> bool:
        configmap = await self._read()
        who = (configmap["metadata"].get("annotations") or {}).get(key_of(peer))
        if who is not None:
            return bool(who == self._own_peer)
        if peer not in peers_of(configmap):
            return False
        try:
            await self._client.update(
                CONFIGMAPS,
                annotated(configmap, {key_of(peer): self._own_peer}),
            )
        except ApiError as error:
            if error.reason == "Conflict":
                return False  # somebody else was quicker
            raise
        return True

    async def _forget(self, peer: str) -> None:
        def changed(configmap: KubeObject) -> KubeObject:
            current = configmap["metadata"].get("annotations") or {}
            gone: dict[str, str | None] = {key: None for key, value in current.items() if value == peer}
            left = {name: node for name, node in peers_of(configmap).items() if name != peer}
            return annotated(with_peers(configmap, left), gone | {key_of(peer): None})

        await self._update(changed)

    async def _update(self, change: Callable[[KubeObject], KubeObject]) -> None:
        for _ in range(_TRIES):
            try:
                await self._client.update(CONFIGMAPS, change(await self._read()))
                return
            except ApiError as error:
                if error.reason != "Conflict":
                    raise
        raise ApiError(409, "Conflict", f"too many conflicts for ConfigMap {NAME}")

    async def _read(self) -> KubeObject:
        """Made when it is not there."""
        while True:
            try:
                return await self._client.get(CONFIGMAPS, NAME, NAMESPACE)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
            body: dict[str, Any] = {"metadata": {"name": NAME, "namespace": NAMESPACE}}
            try:
                return await self._client.create(
                    CONFIGMAPS,
                    {"apiVersion": "v1", "kind": "ConfigMap", **body},
                )
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
