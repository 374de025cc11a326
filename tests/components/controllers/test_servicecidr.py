"""A ServiceCIDR becomes ready, and stays until none of its addresses is in use."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.controllers.actions import Update
from kubewire.components.controllers.servicecidr.plan import FINALIZER, is_needed, plan
from tests.components.controllers.objects import NOW, stamp


def cidr(*cidrs: str, **metadata: Any) -> Any:
    return {"kind": "ServiceCIDR", "metadata": {"name": "more", **metadata}, "spec": {"cidrs": list(cidrs)}}


def carried_out(given: Any, others: list[Any], addresses: list[str]) -> Any:
    """The object when nothing is left to do."""
    for _ in range(5):
        actions = plan(given, others, addresses, NOW)
        if not actions:
            return given
        (action,) = actions
        assert isinstance(action, Update)
        given = action.obj
    raise AssertionError("does not settle")


def ready(given: dict[str, Any]) -> tuple[str, str, str]:
    (found,) = given["status"]["conditions"]
    return found["status"], found["reason"], found["message"]


LEAVING: Any = {"deletionTimestamp": stamp(), "finalizers": [FINALIZER]}


def test_a_new_one_gets_finalizer_and_condition():
    settled = carried_out(cidr("10.77.0.0/24"), [], [])
    assert settled["metadata"]["finalizers"] == [FINALIZER]
    assert ready(settled) == ("True", "", "Kubernetes Service CIDR is ready")


def test_one_in_use_waits_and_says_why():
    settled = carried_out(cidr("10.77.0.0/24", **LEAVING), [], ["10.77.0.9"])
    assert settled["metadata"]["finalizers"] == [FINALIZER]
    assert ready(settled) == (
        "False",
        "Terminating",
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
    )
    assert carried_out(settled, [], ["10.78.0.9"])["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    ("others", "needed"),
    [
        ([], True),
        ([cidr("10.77.0.0/16")], False),
        ([cidr("10.77.0.0/16", **LEAVING)], True),
        ([cidr("10.77.0.128/25")], True),
        ([cidr("fd00::/108")], True),
    ],
)
def test_another_range_may_take_its_addresses_over(others, needed):
    assert is_needed(cidr("10.77.0.0/24", **LEAVING), others, ["10.77.0.9"]) is needed
