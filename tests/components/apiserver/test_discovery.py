"""Discovery, OpenAPI, health and metrics documents."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from kubewire.components.apiserver.http.requestinfo import parse
from kubewire.components.apiserver.registry.catalog import version_rank
from kubewire.components.kubeapi.client import Client
from tests.components.apiserver.conftest import Run

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList,application/json"


def get(run: Run, path: str, accept: str = "application/json") -> Any:
    return orjson.loads(run(lambda client: client.request("GET", path, headers={"Accept": accept})))


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_aggregated_discovery(run: Run, version: str) -> None:
    core = get(run, "/api", AGGREGATED.format(version))
    assert core["kind"] == "APIGroupDiscoveryList"
    assert core["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    pods = next(one for one in core["items"][0]["versions"][0]["resources"] if one["resource"] == "pods")
    assert pods["shortNames"] == ["po"]
    assert pods["scope"] == "Namespaced"
    assert {one["subresource"] for one in pods["subresources"]} >= {"status", "log", "exec", "binding", "eviction"}
    groups = get(run, "/apis", AGGREGATED.format(version))
    names = [item["metadata"]["name"] for item in groups["items"]]
    assert names[:2] == ["apiregistration.k8s.io", "apps"]
    assert "discovery.k8s.io" in names


def test_discovery_per_group(run: Run) -> None:
    assert get(run, "/api")["versions"] == ["v1"]
    groups = {group["name"]: group for group in get(run, "/apis")["groups"]}
    assert groups["apps"]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    assert get(run, "/apis/apps")["kind"] == "APIGroup"
    resources = {one["name"]: one for one in get(run, "/apis/apps/v1")["resources"]}
    assert resources["deployments"]["verbs"] == [
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"
    ]  # fmt: skip
    assert resources["deployments/scale"]["group"] == "autoscaling"
    assert resources["deployments/scale"]["kind"] == "Scale"


def test_every_discovered_resource_can_be_listed(run: Run) -> None:
    for item in [
        *get(run, "/api", AGGREGATED.format("v2"))["items"],
        *get(run, "/apis", AGGREGATED.format("v2"))["items"],
    ]:
        group = item["metadata"].get("name", "")
        for version in item["versions"]:
            root = f"/apis/{group}/{version['version']}" if group else f"/api/{version['version']}"
            for resource in version["resources"]:
                if "list" in resource["verbs"]:
                    answer = get(run, f"{root}/{resource['resource']}")
                    assert answer["kind"] == f"{resource['responseKind']['kind']}List"


def test_every_group_version_has_its_openapi_document(run: Run) -> None:
    paths = get(run, "/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1"} <= set(paths)
    for path in paths:
        assert get(run, f"/openapi/v3/{path}")["openapi"].startswith("3.")
    assert get(run, "/openapi/v2")["swagger"] == "2.0"


def test_documents_are_not_sent_twice(run: Run) -> None:
    async def act(client: Client) -> None:
        url = client.credentials.server + "/openapi/v2"
        async with client.session().get(url) as first:
            etag = first.headers["ETag"]
        async with client.session().get(url, headers={"If-None-Match": etag}) as second:
            assert second.status == 304

    run(act)


def test_version_is_the_one_we_follow(run: Run) -> None:
    assert get(run, "/version")["gitVersion"] == "v1.36.2+kubewire"


def test_metrics_count_requests_and_watches(run: Run) -> None:
    async def act(client: Client) -> str:
        await client.request("GET", "/api/v1/namespaces/default/configmaps?limit=1")
        return (await client.request("GET", "/metrics")).decode()

    text = run(act)
    about = 'dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"'
    labels = f'component="apiserver",{about}'
    assert re.search(rf'^apiserver_request_total{{code="200",{labels}}} [1-9]', text, re.M)
    assert re.search(rf"^apiserver_request_duration_seconds_count{{{labels}}} [1-9]", text, re.M)
    assert re.search(r'^apiserver_storage_objects{resource="namespaces"} [4-9]', text, re.M)


REQUESTS = {
    "/api/v1/namespaces/ns/pods": ("list", "", "v1", "ns", "pods", "", "", ""),
    "/api/v1/pods?watch=1": ("watch", "", "v1", "", "pods", "", "", ""),
    "/api/v1/watch/namespaces/ns/pods/x": ("watch", "", "v1", "ns", "pods", "x", "", ""),
    "/api/v1/namespaces": ("list", "", "v1", "", "namespaces", "", "", ""),
    "/api/v1/namespaces/ns": ("get", "", "v1", "", "namespaces", "ns", "", ""),
    "/api/v1/namespaces/ns/status": ("get", "", "v1", "", "namespaces", "ns", "status", ""),
    "/apis/apps/v1/namespaces/ns/deployments/d/scale": ("get", "apps", "v1", "ns", "deployments", "d", "scale", ""),
    "/api/v1/namespaces/ns/services/http:s:80/proxy/a/b": (
        "get", "", "v1", "ns", "services", "http:s:80", "proxy", "/a/b"
    ),
    "/api/v1/nodes/n/proxy": ("get", "", "v1", "", "nodes", "n", "proxy", ""),
}  # fmt: skip


@pytest.mark.parametrize(("url", "expected"), REQUESTS.items(), ids=REQUESTS.keys())
def test_urls_are_understood(url: str, expected: tuple[str, ...]) -> None:
    path, _, query = url.partition("?")
    info = parse("GET", path, dict([query.split("=")] if query else []))
    found = (info.verb, info.group, info.version, info.namespace, info.plural, info.name, info.subresource, info.rest)
    assert found == expected
    assert info.is_resource


def test_versions_sort_by_maturity_then_number() -> None:
    versions = ["v1alpha1", "v10", "v1", "v2beta1", "foo", "v2", "v1beta2"]
    assert sorted(versions, key=version_rank) == ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]
