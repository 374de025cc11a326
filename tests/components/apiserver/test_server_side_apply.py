"""Server-side apply: ownership, conflicts and removal."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kubewire.components.apiserver.registry.fieldsets import (
    from_fields_v1,
    merged,
    owned_fields,
    readable,
    to_fields_v1,
    without,
)
from kubewire.components.kubeapi.client import APPLY_PATCH, ApiError, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS, SERVICES, KubeObject
from tests.components.apiserver.conftest import Run


async def apply(
    client: Client, resource: Any, name: str, body: KubeObject, manager: str, force: bool = False
) -> KubeObject:
    config = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}} | body
    params = {"fieldManager": manager, "force": str(force).lower()}
    return await client.patch(resource, name, config, "default", content_type=APPLY_PATCH, params=params)


def test_apply_creates_then_merges_then_removes_what_is_left_out(run: Run) -> None:
    async def act(client: Client) -> None:
        made = await apply(client, CONFIGMAPS, "ssa", {"data": {"a": "1", "b": "2"}}, "me")
        entry = made["metadata"]["managedFields"][0]
        assert (entry["manager"], entry["operation"]) == ("me", "Apply")
        assert entry["fieldsV1"] == {"f:data": {"f:a": {}, "f:b": {}}}
        await apply(client, CONFIGMAPS, "ssa", {"data": {"c": "3"}}, "other")
        after = await apply(client, CONFIGMAPS, "ssa", {"data": {"a": "1"}}, "me")
        assert after["data"] == {"a": "1", "c": "3"}
        assert await apply(client, CONFIGMAPS, "ssa", {"data": {"a": "1"}}, "me") == after

    run(act)


def test_another_managers_value_is_a_conflict_unless_forced(run: Run) -> None:
    async def act(client: Client) -> None:
        await apply(client, CONFIGMAPS, "fight", {"data": {"a": "1"}}, "first")
        with pytest.raises(ApiError) as error:
            await apply(client, CONFIGMAPS, "fight", {"data": {"a": "2"}}, "second")
        assert (error.value.status, error.value.reason) == (409, "Conflict")
        assert error.value.message == 'Apply failed with 1 conflict: conflict with "first" using v1: .data.a'
        cause = error.value.body["details"]["causes"][0]
        assert cause == {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "first" using v1',
            "field": ".data.a",
        }
        forced = await apply(client, CONFIGMAPS, "fight", {"data": {"a": "2"}}, "second", force=True)
        assert [entry["manager"] for entry in forced["metadata"]["managedFields"]] == ["second"]
        same = await apply(client, CONFIGMAPS, "fight", {"data": {"a": "2"}}, "third")
        assert {entry["manager"] for entry in same["metadata"]["managedFields"]} == {"second", "third"}

    run(act)


def test_a_plain_update_takes_fields_over(run: Run) -> None:
    async def act(client: Client) -> None:
        await apply(client, CONFIGMAPS, "taken", {"data": {"a": "1", "b": "1"}}, "me")
        path = CONFIGMAPS.path("default", "taken")
        headers = {"Content-Type": "application/merge-patch+json"}
        raw = await client.request("PATCH", f"{path}?fieldManager=hand", body={"data": {"a": "2"}}, headers=headers)
        owners = {entry["manager"]: entry["fieldsV1"] for entry in orjson.loads(raw)["metadata"]["managedFields"]}
        assert owners == {"me": {"f:data": {"f:b": {}}}, "hand": {"f:data": {"f:a": {}}}}
        with pytest.raises(ApiError):
            await apply(client, CONFIGMAPS, "taken", {"data": {"a": "1", "b": "1"}}, "me")

    run(act)


def test_items_of_keyed_lists_have_owners_of_their_own(run: Run) -> None:
    async def act(client: Client) -> None:
        def ports(*numbers: int) -> KubeObject:
            return {"spec": {"ports": [{"port": number, "name": f"p{number}"} for number in numbers]}}

        await apply(client, SERVICES, "listed", ports(80, 81), "me")
        await apply(client, SERVICES, "listed", ports(90), "other")
        after = await apply(client, SERVICES, "listed", ports(81), "me")
        assert [port["port"] for port in after["spec"]["ports"]] == [81, 90]

    run(act)


def test_apply_needs_a_manager(run: Run) -> None:
    async def act(client: Client) -> None:
        with pytest.raises(ApiError) as error:
            await apply(client, CONFIGMAPS, "nobody", {}, "")
        # Without the parameter the program's name stands in on other verbs; apply insists.
        assert error.value.message == (
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )

    run(act)


def keys(path: tuple[str, ...]) -> tuple[str, ...] | None:
    return {("l",): ("name",), ("s",): (), ("l", "ports"): ("port", "protocol")}.get(path)


OBJ: dict[str, Any] = {
    "l": [{"name": "a", "v": 1, "ports": [{"port": 80}]}], "s": ["x"], "m": {"k": {}}, "atomic": [1, 2]
}  # fmt: skip


@pytest.mark.parametrize("number", [3, 20_000], ids=["few", "as many as are sorted in parts"])
def test_written_fields_are_in_order(number: int) -> None:
    names = [f"f:k{index}" for index in range(number)]
    written = to_fields_v1({("f:data", name) for name in names} | {("f:data",)})
    assert list(written["f:data"]) == sorted([".", *names])


def test_fields_v1_is_written_as_upstream_and_read_back() -> None:
    fields = owned_fields(OBJ, keys)
    written = to_fields_v1(fields)
    assert written == {
        "f:atomic": {},
        "f:l": {
            'k:{"name":"a"}': {
                ".": {},
                "f:name": {},
                "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}},
                "f:v": {},
            }
        },
        "f:m": {"f:k": {}},
        "f:s": {'v:"x"': {}},
    }
    assert from_fields_v1(written) == fields


def test_paths_read_as_in_conflicts() -> None:
    assert readable(("f:l", 'k:{"name":"a"}', "f:v")) == '.l[name="a"].v'
    assert readable(("f:s", 'v:"x"')) == '.s[="x"]'


def test_removal_takes_empty_parents_along_but_nothing_else() -> None:
    assert without(OBJ, [("f:s", 'v:"x"')]) == {key: value for key, value in OBJ.items() if key != "s"}
    assert without(OBJ, [("f:l", 'k:{"name":"a"}', "f:v")])["l"] == [{"name": "a", "ports": [{"port": 80}]}]
    assert without(OBJ, [("f:none", "f:x")]) == OBJ


def test_merging_keeps_order_and_adds() -> None:
    applied = {"l": [{"name": "b"}, {"name": "a", "v": 2}], "s": ["y", "x"], "atomic": [3]}
    assert merged(OBJ, applied, keys) == {
        "l": [{"name": "a", "v": 2, "ports": [{"port": 80}]}, {"name": "b"}],
        "s": ["x", "y"],
        "m": {"k": {}},
        "atomic": [3],
    }
