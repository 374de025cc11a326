"""Which options of a list or watch are accepted, and what they mean."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from components.machinery.client import Client
from components.machinery.resources import CONFIGMAPS
from tests.components.apiserver.conftest import Run

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


def test_a_next_page_has_a_version_already(run: Run) -> None:
    async def act(client: Client) -> None:
        for name in ("page-a", "page-b"):
            await client.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": "default"}})
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
        await client.create(CONFIGMAPS, {"metadata": {"name": "a-later-one", "namespace": "default"}})
        for params, seen in (({"limit": "500"}, False), ({}, True)):
            _, body = await get(client, resourceVersion=version, **params)
            assert ("a-later-one" in [item["metadata"]["name"] for item in body["items"]]) is seen

    run(act)


def test_a_watch_without_initial_events_starts_now(run: Run) -> None:
    async def act(client: Client) -> None:
        await client.create(CONFIGMAPS, {"metadata": {"name": "there-before", "namespace": "default"}})
        params = {"watch": "1", "sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
        async with client.session().get(client.credentials.server + PATH, params=params) as response:
            await client.create(CONFIGMAPS, {"metadata": {"name": "there-after", "namespace": "default"}})
            async with asyncio.timeout(10):
                event = orjson.loads(await response.content.readline())
        assert event["object"]["metadata"]["name"] == "there-after"

    run(act)
