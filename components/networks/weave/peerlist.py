"""kube-utils: the ConfigMap weave-net lists the peers, and the addresses of deleted nodes' peers
are taken over.

Only one peer may take over a dead peer. A peer claims this task by an annotation on the ConfigMap;
the API server's resourceVersion lets only one of several simultaneous writes succeed.
(github.com/weaveworks/weave, prog/kube-utils: peerlist.go, annotations.go, reclaimRemovedPeers in
main.go.)
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ConfigMap

log = logging.getLogger("weave-net")

NAME = "weave-net"
NAMESPACE = "kube-system"
PREFIX = "kube-peers.weave.works/"
PEERS = PREFIX + "peers"
_TRIES = 20


def peers_of(configmap: ConfigMap) -> dict[str, str]:
    """Peer's name -> node's name."""
    listed = json.loads(
        (configmap["metadata"].get("annotations") or {}).get(PEERS, '{"Peers": []}'),
    )
    return {peer["PeerName"]: peer["NodeName"] for peer in listed["Peers"] or []}


def with_peers(configmap: ConfigMap, peers: dict[str, str]) -> ConfigMap:
    listed = {"Peers": [{"PeerName": peer, "NodeName": node} for peer, node in peers.items()]}
    return annotated(configmap, {PEERS: json.dumps(listed)})


def annotated(configmap: ConfigMap, changes: dict[str, str | None]) -> ConfigMap:
    """A change to None removes the annotation."""
    annotations = (configmap["metadata"].get("annotations") or {}) | changes
    kept = {key: value for key, value in annotations.items() if value is not None}
    return {**configmap, "metadata": {**configmap["metadata"], "annotations": kept}}


def key_of(peer: str) -> str:
    """The annotation for a peer, with characters that are not allowed replaced."""
    return PREFIX + re.sub(r"[^A-Za-z0-9._/-]", "_", peer)


class PeerList:
    """All methods raise ApiError."""

    def __init__(self, client: Client, own_peer: str, own_node: str) -> None:
        self._client = client
        self._own_peer = own_peer
        self._own_node = own_node

    async def is_listed(self) -> bool:
        """False for a peer that was taken over: the ring it saved belongs to others now.

        An empty list (the ConfigMap was deleted) proves nothing, and pods may use the saved
        addresses.
        """
        peers = peers_of(await self._read())
        return not peers or self._own_peer in peers

    async def add_own(self) -> None:
        def changed(configmap: ConfigMap) -> ConfigMap:
            return with_peers(configmap, peers_of(configmap) | {self._own_peer: self._own_node})

        await self._update(changed)

    async def reclaim(
        self, nodes_now: Callable[[], Awaitable[set[str]]], take_over: Callable[[str], int]
    ) -> None:
        """Takes over peers whose nodes were deleted. take_over: rmpeer.

        The nodes are read after the list: a peer is listed only after its node was registered, so
        the other order could miss a new node.
        """
        configmap = await self._read()
        nodes = await nodes_now()
        for peer, node in peers_of(configmap).items():
            replaced = node == self._own_node and peer != self._own_peer
            if (
                peer != self._own_peer
                and (node not in nodes or replaced)
                and await self._is_ours_to_do(peer)
            ):
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
                return False  # another peer was faster
            raise
        return True

    async def _forget(self, peer: str) -> None:
        def changed(configmap: ConfigMap) -> ConfigMap:
            current = configmap["metadata"].get("annotations") or {}
            gone: dict[str, str | None] = {
                key: None for key, value in current.items() if value == peer
            }
            left = {name: node for name, node in peers_of(configmap).items() if name != peer}
            return annotated(with_peers(configmap, left), gone | {key_of(peer): None})

        await self._update(changed)

    async def _update(self, change: Callable[[ConfigMap], ConfigMap]) -> None:
        for _ in range(_TRIES):
            try:
                await self._client.update(CONFIGMAPS, change(await self._read()))
                return
            except ApiError as error:
                if error.reason != "Conflict":
                    raise
        raise ApiError(409, "Conflict", f"too many conflicts for ConfigMap {NAME}")

    async def _read(self) -> ConfigMap:
        """Reads the ConfigMap, creating it if it does not exist."""
        while True:
            try:
                return await self._client.get(CONFIGMAPS, NAME, NAMESPACE)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
            try:
                return await self._client.create(
                    CONFIGMAPS,
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "metadata": {"name": NAME, "namespace": NAMESPACE},
                    },
                )
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
