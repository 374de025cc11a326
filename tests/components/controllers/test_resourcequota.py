"""Quotas are counted from what there is."""

from __future__ import annotations

from typing import Any

from kubewire.components.controllers.actions import Update
from kubewire.components.controllers.resourcequota.plan import plan, resources_of
from tests.components.controllers.objects import NOW, pod


def quota(**hard: str) -> Any:
    full = {key.replace("_", "/"): value for key, value in hard.items()}
    return {"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": full}}


def test_used_is_what_the_objects_use_of_each_entry():
    given = quota(pods="5", count_secrets="3", cpu="2", services="1")
    objects = {"pods": [pod("a"), pod("b", phase="Failed")], "secrets": [{"metadata": {"name": "s"}}]}
    assert resources_of(given) == {"pods", "secrets", "services"}
    (update,) = plan(given, objects, NOW)
    assert isinstance(update, Update)
    assert update.obj["status"] == {
        "hard": {"pods": "5", "count/secrets": "3", "cpu": "2", "services": "1"},
        "used": {"pods": "1", "count/secrets": "1", "cpu": "0", "services": "0"},
    }
    assert plan({**given, "status": update.obj["status"]}, objects, NOW) == ()


def test_scopes_leave_objects_out():
    given = quota(pods="5")
    given["spec"]["scopes"] = ["Terminating"]
    (update,) = plan(given, {"pods": [pod("a"), pod("b", spec={"activeDeadlineSeconds": 9})]}, NOW)
    assert isinstance(update, Update)
    assert update.obj["status"]["used"] == {"pods": "1"}
