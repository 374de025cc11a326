"""Which nodes a pod's nodeSelector and required node affinity admit."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubeapi.nodeaffinity import pod_admits_node
from kubewire.components.kubeapi.resources import KubeObject

NODE: Any = {"metadata": {"name": "worker-1", "labels": {"zone": "a", "cores": "8", "model": "x"}}}


def affinity(*terms: KubeObject) -> Any:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"affinity": {"nodeAffinity": required}}


def label(key: str, operator: str, *values: Any) -> Any:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "admitted"),
    [
        pytest.param({}, True, id="no wish"),
        pytest.param({"nodeSelector": {"zone": "a", "model": "x"}}, True, id="nodeSelector: all labels"),
        pytest.param({"nodeSelector": {"zone": "a", "model": "y"}}, False, id="nodeSelector: one differs"),
        pytest.param({"nodeSelector": {"rack": "1"}}, False, id="nodeSelector: one is missing"),
        pytest.param(affinity(), False, id="no terms admit nothing"),
        pytest.param(affinity({}), False, id="an empty term admits nothing"),
        pytest.param(affinity(label("zone", "In", "a", "b")), True, id="In"),
        pytest.param(affinity(label("zone", "In", "b")), False, id="not In"),
        pytest.param(affinity(label("zone", "NotIn", "a")), False, id="NotIn"),
        pytest.param(affinity(label("rack", "NotIn", "1")), True, id="NotIn: a missing label is not in"),
        pytest.param(affinity(label("zone", "Exists")), True, id="Exists"),
        pytest.param(affinity(label("zone", "DoesNotExist")), False, id="DoesNotExist"),
        pytest.param(affinity(label("cores", "Gt", "4")), True, id="Gt compares numbers"),
        pytest.param(affinity(label("cores", "Gt", "10")), False, id="Gt: 8 is not above 10, though the text is"),
        pytest.param(affinity(label("cores", "Lt", "8")), False, id="Lt is strict"),
        pytest.param(affinity(label("model", "Gt", "1")), False, id="Gt of no number"),
        pytest.param(affinity(label("zone", "In", "b"), label("model", "In", "x")), True, id="terms are alternatives"),
        pytest.param(
            affinity({"matchExpressions": [*label("zone", "In", "a")["matchExpressions"],
                                           *label("model", "In", "y")["matchExpressions"]]}),
            False, id="expressions of a term hold together",
        ),
        pytest.param(
            affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["worker-1"]}]}),
            True, id="by name",
        ),
        pytest.param(
            affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["worker-2"]}]}),
            False, id="by another name",
        ),
        pytest.param(
            {"nodeSelector": {"zone": "b"}} | affinity(label("zone", "In", "a")), False, id="selector and affinity"
        ),
    ],
)  # fmt: skip
def test_a_pod_admits_a_node(spec: Any, admitted: bool) -> None:
    assert pod_admits_node(spec, NODE) is admitted
