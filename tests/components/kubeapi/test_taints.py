"""Which toleration covers which taint."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubeapi.taints import tolerates, untolerated

GPU: Any = {"key": "gpu", "value": "a100", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        pytest.param({"operator": "Exists"}, True, id="everything"),
        pytest.param({"key": "gpu", "operator": "Exists"}, True, id="any value of the key"),
        pytest.param({"key": "gpu", "value": "a100"}, True, id="Equal is the default"),
        pytest.param({"key": "gpu", "operator": "Equal", "value": "a100", "effect": "NoSchedule"}, True, id="the same"),
        pytest.param({"key": "gpu", "operator": "Equal", "value": "h100"}, False, id="another value"),
        pytest.param({"key": "gpu"}, False, id="an empty value is a value"),
        pytest.param({"key": "disk", "operator": "Exists"}, False, id="another key"),
        pytest.param({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False, id="another effect"),
        pytest.param({"value": "a100"}, False, id="Equal needs a key"),
        pytest.param({"key": "gpu", "operator": "Like", "value": "a100"}, False, id="no such operator"),
    ],
)
def test_a_toleration_covers_a_taint(toleration: Any, expected: bool) -> None:
    assert tolerates(toleration, GPU) is expected


def test_the_first_taint_with_an_effect_that_counts_and_that_nothing_tolerates() -> None:
    soft: Any = {"key": "slow", "effect": "PreferNoSchedule"}
    down: Any = {"key": "down", "effect": "NoExecute"}
    taints = [soft, GPU, down]
    assert untolerated(taints, [], ["NoSchedule", "NoExecute"]) == GPU
    assert untolerated(taints, [{"key": "gpu", "operator": "Exists"}], ["NoSchedule", "NoExecute"]) == down
    assert untolerated(taints, [{"operator": "Exists"}], ["NoSchedule", "NoExecute"]) is None
    assert untolerated([soft], [], ["NoSchedule"]) is None
