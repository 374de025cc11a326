"""The definitions of policy.networking.k8s.io on a real API server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CUSTOMRESOURCEDEFINITIONS
from kubewire.components.policy.compiler.kinds import POLICIES
from kubewire.components.policy.definitions import definitions
from kubewire.components.policy.follow import Follower
from kubewire.components.policy.model import Changes, State
from tests.components.apiserver.running import RunningApiServer
from tests.components.policy.objects import Object
from tests.components.policy.tables.cluster import EVERY, cluster, inwards, older, outwards, tcp

RESOURCES = {kind.name: kind.resource for kind in POLICIES}
NETWORKS = {"networks": ["10.0.0.0/8"]}
NAMED = {"destinationNamedPort": "web"}


def run(server: RunningApiServer, act: Callable[[Client], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        async with Client.from_kubeconfig(server.kubeconfig) as client, asyncio.timeout(150):
            return await act(client)

    return asyncio.run(body())


async def install(client: Client) -> None:
    for definition in definitions():
        await client.create(CUSTOMRESOURCEDEFINITIONS, definition)
    for kind in definitions():
        resource = RESOURCES[kind["spec"]["names"]["kind"]]
        while True:
            try:
                await client.list(resource)
                break
            except ApiError:
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningApiServer]:
    with RunningApiServer() as running:
        run(running, install)
        yield running


def create(server: RunningApiServer, policy: Object) -> Object:
    found: Object = run(server, lambda client: client.create(RESOURCES[policy["kind"]], policy))
    return found


def accepting(*to: Object, **fields: Any) -> Object:
    return cluster("p", "Admin", 1, EVERY, egress=[outwards("Accept", *to, **fields)])


@pytest.mark.parametrize(
    "policy",
    [
        cluster("all", "Admin", 0, EVERY, ingress=[inwards("Pass", EVERY, protocols=[tcp(1, 2), NAMED])]),
        cluster("names", "Baseline", 1000, EVERY, egress=[outwards("Accept", {"domainNames": ["*.example.org"]})]),
        older("AdminNetworkPolicy", "old", priority=1, subject=EVERY, ingress=[inwards("Pass", EVERY)]),
        older("BaselineAdminNetworkPolicy", "default", subject=EVERY, egress=[outwards("Deny", NETWORKS)]),
    ],
    ids=["ClusterNetworkPolicy", "domain names", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"],
)
def test_a_policy_is_stored(server: RunningApiServer, policy: Object) -> None:
    assert create(server, copy.deepcopy(policy))["spec"] == policy["spec"]


NO_NAMES = "{0} peer cannot be set with namedPorts since there are no namedPorts for {0}"


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        pytest.param(accepting({"networks": ["10.0.0.0"]}), "Invalid CIDR format provided", id="an address as network"),
        pytest.param(accepting(EVERY, protocols=[tcp(90, 80)]), "Start port must be less than End port", id="a range"),
        pytest.param(
            accepting(EVERY, NETWORKS, protocols=[NAMED]),
            NO_NAMES.format("networks/nodes/domainNames"),
            id="named port",
        ),
        pytest.param(accepting(EVERY | NETWORKS), "Too many: 2: must have at most 1", id="two kinds of peer"),
        pytest.param(accepting({"domainNames": ["*"]}), "should match", id="every name"),
        pytest.param(cluster("p", "Top", 1, EVERY), 'supported values: "Admin", "Baseline"', id="an unknown tier"),
        pytest.param(cluster("p", "Admin", 1001, EVERY), "less than or equal to 1000", id="priority"),
        pytest.param(
            older("BaselineAdminNetworkPolicy", "mine", subject=EVERY),
            'Only one baseline admin network policy with metadata.name="default" can be created',
            id="a second baseline",
        ),
        pytest.param(
            older(
                "BaselineAdminNetworkPolicy",
                "default",
                subject=EVERY,
                egress=[outwards("Deny", NETWORKS, ports=[{"namedPort": "web"}])],
            ),
            NO_NAMES.format("networks/nodes"),
            id="named port of the older kind",
        ),
    ],
)
def test_a_policy_is_refused_for(server: RunningApiServer, policy: Object, text: str) -> None:
    with pytest.raises(ApiError) as raised:
        create(server, policy)
    assert raised.value.status == 422
    assert text in raised.value.message


def test_a_follower_that_runs_already_notices_the_definitions_and_their_policies() -> None:
    told: asyncio.Queue[set[str]] = asyncio.Queue()

    async def changed(state: State, changes: Changes) -> None:
        told.put_nowait({key.name for key in state.policies})

    async def follow(client: Client) -> None:
        task = asyncio.ensure_future(Follower(client, ["ClusterNetworkPolicy"], changed).run())
        assert await told.get() == set()
        await install(client)
        policy = cluster("late", "Admin", 1, EVERY, ingress=[inwards("Deny", EVERY)])
        await client.create(RESOURCES["ClusterNetworkPolicy"], policy)
        while "late" not in await told.get():
            pass
        task.cancel()

    with RunningApiServer() as running:
        run(running, follow)
