"""The event recorder against an API of dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.resources import KubeObject

POD: KubeObject = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"},
}
NODE: KubeObject = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1", "uid": "n1"}}


class FakeApi:
    """Keeps events; refuse(verb) may give the error of a request."""

    def __init__(self, refuse: Callable[[str], int] = lambda verb: 0) -> None:
        self.events: dict[str, KubeObject] = {}
        self._refuse = refuse

    def _check(self, verb: str) -> None:
        if code := self._refuse(verb):
            raise ApiError(code, "Refused", "refused", {})

    async def create(self, resource: object, obj: KubeObject) -> KubeObject:
        self._check("create")
        self.events[obj["metadata"]["name"]] = obj
        return obj

    async def patch(self, resource: object, name: str, patch: KubeObject, namespace: str) -> KubeObject:
        self._check("patch")
        if name not in self.events:
            raise ApiError(404, "NotFound", "gone", {})
        self.events[name] |= patch
        return self.events[name]


def recorded(api: FakeApi, record: Callable[[EventRecorder], None]) -> list[KubeObject]:
    async def body() -> None:
        client: Any = api
        recorder = EventRecorder(client, "kubelet", "worker-1")
        running = asyncio.create_task(recorder.run())
        record(recorder)
        async with asyncio.timeout(5):
            await recorder.flush()
        running.cancel()

    asyncio.run(body())
    return list(api.events.values())


def test_an_event_says_who_about_what_and_where() -> None:
    [event] = recorded(
        FakeApi(),
        lambda r: r.event(POD, "Warning", "BackOff", "Back-off restarting", field_path="spec.containers{app}"),
    )
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["name"].startswith("web.")
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
        "fieldPath": "spec.containers{app}",
    }  # fmt: skip
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "BackOff", 1)
    assert event["source"] == {"component": "kubelet", "host": "worker-1"}


def test_an_event_about_something_without_a_namespace_goes_to_default() -> None:
    [event] = recorded(FakeApi(), lambda r: r.event(NODE, "Normal", "NodeReady", "ready"))
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


def test_the_same_again_raises_the_count_and_another_message_is_another_event() -> None:
    def record(recorder: EventRecorder) -> None:
        for message in ("a", "a", "b", "a"):
            recorder.event(POD, "Normal", "Pulled", message)

    assert {event["message"]: event["count"] for event in recorded(FakeApi(), record)} == {"a": 3, "b": 1}


def test_an_event_that_the_api_has_forgotten_is_made_anew() -> None:
    api = FakeApi(lambda verb: 404 if verb == "patch" else 0)

    def twice(recorder: EventRecorder) -> None:
        for _ in range(2):
            recorder.event(POD, "Normal", "Pulled", "a")

    events = recorded(api, twice)
    assert [event["count"] for event in events] == [1, 1]


def test_an_event_that_is_refused_is_lost_and_the_next_is_written() -> None:
    answers = iter([403, 0])
    api = FakeApi(lambda verb: next(answers))

    def record(recorder: EventRecorder) -> None:
        recorder.event(POD, "Normal", "Lost", "x")
        recorder.event(POD, "Normal", "Kept", "x")

    assert [event["reason"] for event in recorded(api, record)] == ["Kept"]
