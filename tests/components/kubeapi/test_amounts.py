"""Sums of quantities are written as Go writes them."""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest

from kubewire.components.kubeapi.amounts import Amount, shown
from kubewire.components.kubeapi.podresources import pod_limits, pod_requests


@pytest.mark.parametrize(
    ("texts", "want"),
    [
        (("100m", "200m"), "300m"),
        (("500m", "1500m"), "2"),
        (("1Gi", "1024Mi"), "2Gi"),
        (("1Gi", "1M"), "1074741824"),
        (("1M", "1Gi"), "1074741824"),
        (("0", "1Gi"), "1Gi"),
        (("1k", "1k"), "2k"),
        (("512", "0.5Ki"), "1024"),
        (("0",), "0"),
        (("1500Mi",), "1500Mi"),
        (("0.1",), "100m"),
    ],
)
def test_sums(texts: tuple[str, ...], want: str) -> None:
    assert str(reduce(add, (Amount.of(text) for text in texts))) == want


def _holder(cpu: str, **more: str) -> dict[str, object]:
    return {"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        pytest.param({"containers": [_holder("1"), _holder("2")]}, "3", id="containers add up"),
        pytest.param(
            {"containers": [_holder("1")], "initContainers": [_holder("2")]}, "2", id="init containers do not"
        ),
        pytest.param(
            {"containers": [_holder("1")], "initContainers": [_holder("2", restartPolicy="Always"), _holder("3")]},
            "5",
            id="sidecars run beside what comes after them",
        ),
        pytest.param({"containers": [_holder("1")], "overhead": {"cpu": "1"}}, "2", id="overhead"),
        pytest.param({"containers": [_holder("1")], **_holder("7")}, "7", id="the pod's own"),
    ],
)
def test_a_whole_pod(spec: dict[str, object], want: str) -> None:
    assert shown(pod_requests(spec)) == shown(pod_limits(spec)) == {"cpu": want}
