"""Ephemeral containers, as kubectl debug adds them."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubeapi.client import STRATEGIC_MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.resources import PODS
from tests.components.apiserver.conftest import Run


def adding(name: str, image: str = "i") -> Any:
    return {"spec": {"ephemeralContainers": [{"name": name, "image": image}]}}


def test_an_ephemeral_container_is_added_by_its_subresource_alone_and_stays(run: Run) -> None:
    async def act(client: Client) -> None:
        spec = {"containers": [{"name": "a", "image": "i"}]}
        debugged: Any = {"metadata": {"name": "debugged", "namespace": "default"}, "spec": spec}
        await client.create(PODS, debugged)

        async def patch(body: dict[str, object], subresource: str = "ephemeralcontainers") -> Any:
            kind = STRATEGIC_MERGE_PATCH
            return await client.patch(PODS, "debugged", body, "default", subresource=subresource, content_type=kind)

        with pytest.raises(ApiError, match="pod updates may not change fields other than"):
            await patch(adding("shell"), "")
        pod = await patch(adding("shell"))
        assert [one["name"] for one in pod["spec"]["ephemeralContainers"]] == ["shell"]
        assert pod["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"] == "File"
        pod = await patch(adding("second"))
        assert {one["name"] for one in pod["spec"]["ephemeralContainers"]} == {"shell", "second"}
        with pytest.raises(ApiError, match='existing ephemeral containers "shell" may not be changed'):
            await patch(adding("shell", "other"))
        with pytest.raises(ApiError, match=r'spec.ephemeralContainers\[\d\].name: Duplicate value: "a"'):
            await patch(adding("a"))
        await patch({"metadata": {"labels": {"x": "y"}}, **adding("third")})
        assert "labels" not in (await client.get(PODS, "debugged", "default"))["metadata"]

    run(act)


def test_the_kind_of_old_clients_is_refused_and_new_containers_are_a_generation(run: Run) -> None:
    async def act(client: Client) -> None:
        made: Any = {
            "metadata": {"name": "old", "namespace": "default"},
            "spec": {"containers": [{"name": "a", "image": "i"}]},
        }
        created = await client.create(PODS, made)
        path = "/api/v1/namespaces/default/pods/old/ephemeralcontainers"
        old = {
            "kind": "EphemeralContainers",
            "apiVersion": "v1",
            "metadata": {"name": "old"},
            "ephemeralContainers": [],
        }
        text = 'cannot be handled as a Pod: no kind "EphemeralContainers" is registered for version "v1"'
        with pytest.raises(ApiError, match=text):
            await client.request("PUT", path, body=old)
        created["spec"]["ephemeralContainers"] = adding("shell")["spec"]["ephemeralContainers"]
        pod: Any = await client.update(PODS, created, subresource="ephemeralcontainers")
        assert pod["metadata"]["generation"] == 2

    run(act)
