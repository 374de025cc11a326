"""Which options of a list or watch are accepted, and what they mean."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS
from tests.components.apiserver.conftest import Run
from tests.fuzz.apiserver.in_process import in_process

PATH = "/api/v1/namespaces/default/configmaps"


async def get(client: Client, **params: str) -> tuple[int, dict[str, Any]]:
    url = client.credentials.server + PATH
    async with client.session().get(url, params=params) as response:
        return response.status, orjson.loads(await response.read() or b"{}")


MATCH = "resourceVersionMatch: "
INVALID = 'ListOptions.meta.k8s.io "" is invalid: '


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        (
            {"resourceVersionMatch": "Exact"},
            422,
            f"{INVALID}{MATCH}Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
            422,
            f'{INVALID}{MATCH}Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        (
            {"resourceVersionMatch": "Newest", "resourceVersion": "1"},
            422,
            f'{INVALID}{MATCH}Unsupported value: "Newest": supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            {"sendInitialEvents": "true"},
            422,
            f"{INVALID}sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            {"watch": "1", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "1"},
            422,
            f"{INVALID}{MATCH}Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is "
            "provided",
        ),
        (
            {"watch": "1", "sendInitialEvents": "false"},
            422,
            f"{INVALID}{MATCH}Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        ({"limit": "few"}, 400, 'strconv.ParseInt: parsing "few": invalid syntax'),
        ({"watch": "1", "timeoutSeconds": "1s"}, 400, 'strconv.ParseInt: parsing "1s": invalid syntax'),
    ],
    ids=lambda value: "&".join(f"{key}={text}" for key, text in value.items()) if isinstance(value, dict) else "",
)
def test_options_that_do_not_fit_are_refused(run: Run, params: dict[str, str], code: int, message: str) -> None:
    found, body = run(lambda client: get(client, **params))
    assert (found, body["message"]) == (code, message)


def config_map(name: str) -> Any:
    return {"metadata": {"name": name, "namespace": "default"}}


def test_a_next_page_has_a_version_already(run: Run) -> None:
    async def act(client: Client) -> None:
        for name in ("page-a", "page-b"):
            await client.create(CONFIGMAPS, config_map(name))
        _, first = await get(client, limit="1")
        token = first["metadata"]["continue"]
        code, body = await get(client, **{"limit": "1", "continue": token, "resourceVersion": "1"})
        assert (code, body["message"]) == (400, "specifying resource version is not allowed when using continue")
        code, body = await get(client, **{"limit": "1", "continue": token, "resourceVersion": "0"})
        assert code == 200

    run(act)


def test_a_page_of_a_given_version_is_of_exactly_that_version(run: Run) -> None:
    async def act(client: Client) -> None:
        version = (await client.list(CONFIGMAPS, "default")).resource_version
        await client.create(CONFIGMAPS, config_map("a-later-one"))
        for params, seen in (({"limit": "500"}, False), ({}, True)):
            _, body = await get(client, resourceVersion=version, **params)
            assert ("a-later-one" in [item["metadata"]["name"] for item in body["items"]]) is seen

    run(act)


def test_a_watch_without_initial_events_starts_now(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(CONFIGMAPS, config_map("there-before"))
        params = {"watch": "1", "sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
        async with client.session().get(client.credentials.server + PATH, params=params) as response:
            await client.create(CONFIGMAPS, config_map("there-after"))
            async with asyncio.timeout(10):
                event = orjson.loads(await response.content.readline())
        assert event["object"]["metadata"]["name"] == "there-after"

    run(act)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("a=b@c", 'values[0][a]: Invalid value: "b@c": a valid label must be an empty string or consist of'),
        ("-a", '<nil>: Invalid value: "-a": name part must consist of alphanumeric characters'),
        ("a>b", "values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer"),
        ("a in ()", "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
    ],
)
def test_a_selector_of_what_cannot_be_a_label_is_refused(run: Run, selector: str, message: str) -> None:
    code, body = run(lambda client: get(client, labelSelector=selector))
    assert code == 400
    assert body["message"].startswith(f"unable to parse requirement: {message}")


def test_a_grace_period_is_a_number(run: Run) -> None:
    async def act(client: Client) -> int:
        url = client.credentials.server + PATH + "/none"
        async with client.session().delete(url, params={"gracePeriodSeconds": "x"}) as response:
            return response.status

    assert run(act) == 400


def test_what_is_being_deleted_gets_no_new_finalizers(run: Run) -> None:
    async def act(client: Client) -> None:
        held: Any = {"metadata": {"name": "held", "namespace": "default", "finalizers": ["example.com/a"]}}
        await client.create(CONFIGMAPS, held)
        await client.delete(CONFIGMAPS, "held", "default")
        with pytest.raises(ApiError) as error:
            patch = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
            await client.patch(CONFIGMAPS, "held", patch, "default")
        assert error.value.message == (
            'ConfigMap "held" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object '
            'is being deleted, found new finalizers []string{"example.com/b"}'
        )
        await client.patch(CONFIGMAPS, "held", {"metadata": {"finalizers": None}}, "default")

    run(act)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"propagationPolicy": "Later"},
            'Unsupported value: "Later": supported values: "Foreground", "Background", "Orphan", "nil"',
        ),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": "true"},
            'Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set',
        ),
    ],
    ids=["unknown", "twice"],
)
def test_how_to_propagate_a_deletion_is_said_once_and_right(run: Run, params: dict[str, str], message: str) -> None:
    async def act(client: Client) -> tuple[int, str]:
        url = client.credentials.server + PATH + "/none"
        async with client.session().delete(url, params=params) as response:
            return response.status, (await response.json())["message"]

    expected = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {message}'
    assert run(act) == (422, expected)


def test_events_are_selected_by_the_names_of_either_api(tmp_path: Path) -> None:
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    event = {
        "metadata": {"name": "e"},
        "involvedObject": about,
        "reportingComponent": "me",
        "reason": "R",
        "type": "Normal",
    }
    with in_process(tmp_path) as api:
        assert api.create("/api/v1/namespaces/default/events", event).code == 201
        events = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector="
        for selector, count in (
            ("reportingController=me", 1),
            ("reportingController=you", 0),
            ("regarding.name=p,type=Normal", 1),
            ("involvedObject.name=q", 0),
        ):
            assert len(api("GET", events + quote(selector)).body["items"]) == count, selector
