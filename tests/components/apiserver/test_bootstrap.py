"""What a cluster has from its first moment, and gets back when somebody deletes it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import (
    ENDPOINTS,
    ENDPOINTSLICES,
    NAMESPACES,
    SERVICECIDRS,
    SERVICES,
    Resource,
)
from tests.components.apiserver.conftest import Run


def test_the_default_service_cidr_is_ready(run: Run) -> None:
    async def act(client: Client) -> None:
        cidr = await client.get(SERVICECIDRS, "kubernetes")
        assert cidr["spec"] == {"cidrs": ["10.96.0.0/12"]}
        [condition] = cidr["status"]["conditions"]
        assert (condition["type"], condition["status"]) == ("Ready", "True")
        assert condition["message"] == "Kubernetes default Service CIDR is ready"

    run(act)


def test_the_system_namespaces_are_there(run: Run) -> None:
    async def act(client: Client) -> None:
        names = {item["metadata"]["name"] for item in (await client.list(NAMESPACES)).items}
        assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= names

    run(act)


@pytest.mark.parametrize(
    ("resource", "namespace"),
    [(SERVICES, "default"), (ENDPOINTS, "default"), (ENDPOINTSLICES, "default"), (SERVICECIDRS, None)],
    ids=lambda value: value.plural if isinstance(value, Resource) else "",
)
def test_what_is_deleted_comes_back_as_it_was(run: Run, resource: Resource[Any], namespace: str | None) -> None:
    async def act(client: Client) -> None:
        before = await client.get(resource, "kubernetes", namespace)
        await client.delete(resource, "kubernetes", namespace)
        while True:
            try:
                after = await client.get(resource, "kubernetes", namespace)
                break
            except ApiError as error:
                assert error.status == 404
                await asyncio.sleep(0.01)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        ours = ("spec", "subsets", "endpoints", "ports", "addressType")
        assert {key: after.get(key) for key in ours} == {key: before.get(key) for key in ours}

    run(act)
