"""Conversion of custom objects by a webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.components.apiserver.plainclient import PlainClient
from tests.components.apiserver.running import RunningApiServer
from tests.components.apiserver.webhooks import WebhookServer

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def converted(obj: dict[str, Any], api_version: str) -> dict[str, Any]:
    """v1 has spec.host and spec.port, v2 has spec.address."""
    spec = obj["spec"]
    if api_version.endswith("v2") and "host" in spec:
        spec = {"address": f"{spec['host']}:{spec['port']}"}
    elif api_version.endswith("v1") and "address" in spec:
        host, _, port = spec["address"].partition(":")
        spec = {"host": host, "port": port}
    return {**obj, "apiVersion": api_version, "spec": spec}


class Converter(WebhookServer):
    """Answers ConversionReviews; `broken` is the result instead of a conversion."""

    broken: dict[str, Any] | None = None

    def answer(self, review: dict[str, Any]) -> dict[str, Any]:
        if self.broken is not None:
            return self.broken
        wanted = review["request"]["desiredAPIVersion"]
        objects = [converted(obj, wanted) for obj in review["request"]["objects"]]
        return {"result": {"status": "Success"}, "convertedObjects": objects}


@pytest.fixture(scope="module")
def client(server: RunningApiServer) -> PlainClient:
    return PlainClient(server)


def definition(hooks: WebhookServer, storage: str) -> dict[str, Any]:
    def version(name: str, *fields: str) -> dict[str, Any]:
        spec = {
            "type": "object",
            "required": list(fields),
            "properties": {field: {"type": "string"} for field in fields},
        }
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
        return {"name": name, "served": True, "storage": name == storage, "schema": schema}

    return {
        "metadata": {"name": "places.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "places", "kind": "Place"},
            "versions": [version("v1", "host", "port"), version("v2", "address")],
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": hooks.client("/c"), "conversionReviewVersions": ["v1"]}},
        },
    }  # fmt: skip


@pytest.fixture
def hooks(client: PlainClient, server: RunningApiServer) -> Iterator[Converter]:
    """The definition `places` with its webhook; v1 is stored."""
    with Converter(server, name=f"converter-{threading.get_ident()}-{id(object())}") as running:
        answer = client("POST", DEFINITIONS, definition(running, "v1"))
        assert answer.code == 201, answer.message
        yield running
        running.broken = None
        for item in client("GET", path("v1")).body.get("items", []):
            client("DELETE", f"{path('v1')}/{item['metadata']['name']}")
        client("DELETE", f"{DEFINITIONS}/places.example.com")


def path(version: str) -> str:
    return f"/apis/example.com/{version}/places"


def place(version: str, name: str, **spec: str) -> dict[str, Any]:
    return {"apiVersion": f"example.com/{version}", "kind": "Place", "metadata": {"name": name}, "spec": spec}


def test_an_object_is_served_at_every_version(client: PlainClient, hooks: Converter) -> None:
    created = client("POST", path("v2"), place("v2", "a", address="h:1"))
    assert (created.code, created.body["apiVersion"], created.body["spec"]) == (
        201,
        "example.com/v2",
        {"address": "h:1"},
    )
    assert client("GET", f"{path('v1')}/a").body["spec"] == {"host": "h", "port": "1"}
    assert client("GET", f"{path('v2')}/a").body["spec"] == {"address": "h:1"}
    assert [item["spec"] for item in client("GET", path("v2")).body["items"]] == [{"address": "h:1"}]


def test_the_schema_is_that_of_the_request(client: PlainClient, hooks: Converter) -> None:
    assert client("POST", path("v2"), place("v2", "a", address="h:1")).code == 201
    wrong = client("PATCH", f"{path('v2')}/a", {"spec": {"address": None}}, kind="application/merge-patch+json")
    assert "spec.address: Required value" in wrong.message
    changed = client("PATCH", f"{path('v2')}/a", {"spec": {"address": "x:2"}}, kind="application/merge-patch+json")
    assert changed.body["spec"] == {"address": "x:2"}
    assert client("GET", f"{path('v1')}/a").body["spec"] == {"host": "x", "port": "2"}


def test_an_object_is_read_after_the_stored_version_changed(client: PlainClient, hooks: Converter) -> None:
    client("POST", path("v1"), place("v1", "a", host="h", port="1"))
    stored = client("GET", f"{DEFINITIONS}/places.example.com").body
    stored["spec"]["versions"] = definition(hooks, "v2")["spec"]["versions"]
    assert client("PUT", f"{DEFINITIONS}/places.example.com", stored).code == 200
    assert client("GET", f"{path('v2')}/a").body["spec"] == {"address": "h:1"}
    assert client("GET", f"{path('v1')}/a").body["spec"] == {"host": "h", "port": "1"}


def test_a_list_is_converted_by_one_call_and_once(client: PlainClient, hooks: Converter) -> None:
    for name in "abc":
        client("POST", path("v1"), place("v1", name, host="h", port="1"))
    hooks.asked.clear()
    for _ in range(2):
        items = client("GET", path("v2")).body["items"]
        assert [item["spec"] for item in items] == [{"address": "h:1"}] * 3
    assert [len(review["request"]["objects"]) for _, review in hooks.asked] == [3]


def test_a_watch_shows_the_version_that_it_asks_for(client: PlainClient, hooks: Converter) -> None:
    client("POST", path("v1"), place("v1", "a", host="h", port="1"))
    client("POST", path("v1"), place("v1", "b", host="i", port="2"))
    answer = client("GET", f"{path('v2')}?watch=true&timeoutSeconds=1")
    lines = [json.loads(line) for line in answer.lines]
    assert [(line["type"], line["object"]["spec"]) for line in lines] == [
        ("ADDED", {"address": "h:1"}),
        ("ADDED", {"address": "i:2"}),
    ]


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "the reason of the webhook": ({"result": {"status": "Failed", "message": "no idea"}}, "failed: no idea"),
    "too few objects": ({"result": {"status": "Success"}, "convertedObjects": []}, "returned 0 objects, expected 1"),
    "another kind": ({"result": {"status": "Success"}, "convertedObjects": [{"apiVersion": "example.com/v2", "kind": "X", "metadata": {"name": "a"}}]}, "returned invalid converted object at index 0: invalid kind (expected Place, received X)"),
    "another version": ({"result": {"status": "Success"}, "convertedObjects": [{"apiVersion": "example.com/v1", "kind": "Place", "metadata": {"name": "a"}}]}, "returned invalid converted object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v1)"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_says(client: PlainClient, hooks: Converter, case: str) -> None:
    result, text = FAILURES[case]
    client("POST", path("v1"), place("v1", "a", host="h", port="1"))
    hooks.broken = result
    answer = client("GET", f"{path('v2')}/a")
    assert (answer.code, answer.message) == (
        500,
        f"Internal error occurred: conversion webhook for example.com/v1, Kind=Place {text}",
    )
