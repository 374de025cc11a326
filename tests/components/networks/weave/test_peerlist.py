"""kube-utils' part against an API in memory: one takes over, nobody twice, and the own peer never."""

import asyncio
import copy
from typing import Any, cast

import pytest

from kubewire.components.kubeapi.client import ApiError
from kubewire.components.networks.weave.peerlist import PEERS, PeerList, annotated, key_of, peers_of, with_peers

A, B, C = "0a:00:00:00:00:01", "0a:00:00:00:00:02", "0a:00:00:00:00:03"


class Api:
    """One ConfigMap, with resourceVersions. meanwhile: called before the next update."""

    def __init__(self):
        self.configmap: Any = None
        self.version, self.meanwhile = 0, None

    async def get(self, *_):
        if self.configmap is None:
            raise ApiError(404, "NotFound", "")
        return copy.deepcopy(self.configmap)

    async def create(self, _, obj):
        if self.configmap is not None:
            raise ApiError(409, "AlreadyExists", "")
        return await self._store(obj)

    async def update(self, _, obj):
        if self.meanwhile:
            work, self.meanwhile = self.meanwhile, None
            await work()
        if obj["metadata"]["resourceVersion"] != self.configmap["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        return await self._store(obj)

    async def _store(self, obj):
        self.version += 1
        self.configmap = copy.deepcopy(obj)
        self.configmap["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.configmap)


def lists(api):
    return PeerList(cast(Any, api), A, "worker-1"), PeerList(cast(Any, api), B, "worker-2")


async def reclaim(peerlist, nodes):
    taken = []

    def take(peer):
        taken.append(peer)
        return 7

    async def now():
        return nodes

    await peerlist.reclaim(now, take)
    return taken


def test_each_adds_itself_whatever_the_other_does_meanwhile():
    async def body():
        api = Api()
        one, other = lists(api)
        assert await one.is_listed(), "a list of nobody says nothing"
        await other.add_own()
        assert not await one.is_listed()
        await one.add_own()
        api.configmap = with_peers(api.configmap, {})
        api.meanwhile = other.add_own
        await one.add_own()
        assert peers_of(api.configmap) == {A: "worker-1", B: "worker-2"}
        assert await one.is_listed()

    asyncio.run(body())


def test_the_peer_of_a_removed_node_is_taken_over_once():
    async def body():
        api = Api()
        one, other = lists(api)
        for peerlist in (one, other, PeerList(cast(Any, api), C, "worker-3")):
            await peerlist.add_own()
        assert await reclaim(one, {"worker-1", "worker-2", "worker-3"}) == []
        assert await reclaim(one, {"worker-1", "worker-2"}) == [C]
        assert await reclaim(other, {"worker-1", "worker-2"}) == []
        assert peers_of(api.configmap) == {A: "worker-1", B: "worker-2"}
        assert set(api.configmap["metadata"]["annotations"]) == {PEERS}

    asyncio.run(body())


def test_of_two_that_want_to_the_quicker_one_does():
    async def body():
        api = Api()
        one, other = lists(api)
        for peerlist in (one, other, PeerList(cast(Any, api), C, "worker-3")):
            await peerlist.add_own()
        second = []

        async def quicker():
            second.extend(await reclaim(other, {"worker-1", "worker-2"}))

        api.meanwhile = quicker
        assert await reclaim(one, {"worker-1", "worker-2"}) == []
        assert second == [C]

    asyncio.run(body())


@pytest.mark.parametrize(("who", "taken"), [(A, [C]), (B, [])], ids=["by itself", "by another"])
def test_what_was_begun_is_finished_by_who_began_it(who, taken):
    async def body():
        api = Api()
        one, _ = lists(api)
        await one.add_own()
        await PeerList(cast(Any, api), C, "worker-3").add_own()
        api.configmap = annotated(api.configmap, {key_of(C): who})
        assert await reclaim(one, {"worker-1", "worker-2"}) == taken

    asyncio.run(body())


def test_an_old_peer_of_the_own_node_is_taken_over_the_own_peer_is_not():
    async def body():
        api = Api()
        one, _ = lists(api)
        await one.add_own()
        api.configmap = with_peers(api.configmap, peers_of(api.configmap) | {C: "worker-1"})
        assert await reclaim(one, {"worker-1"}) == [C]
        assert await reclaim(one, set()) == []

    asyncio.run(body())
