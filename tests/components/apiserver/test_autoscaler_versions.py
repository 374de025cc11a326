"""HorizontalPodAutoscalers in autoscaling/v1, which are stored in v2."""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver.kinds.workloads.autoscalerversions import from_v2, to_v2
from kubewire.components.apiserver.kinds.workloads.horizontalpodautoscaler import HORIZONTALPODAUTOSCALERS_V1
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import HORIZONTALPODAUTOSCALERS
from tests.components.apiserver.conftest import Run

SPEC = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5}


def test_what_is_written_in_one_version_is_read_in_the_other(run: Run) -> None:
    async def act(client: Client) -> Any:
        metadata = {"name": "web", "namespace": "default"}
        old = {"metadata": metadata, "spec": {**SPEC, "targetCPUUtilizationPercentage": 60}}
        made = await client.create(HORIZONTALPODAUTOSCALERS_V1, old)
        new = await client.get(HORIZONTALPODAUTOSCALERS, "web", "default")
        new["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 7}}
        await client.update(HORIZONTALPODAUTOSCALERS, new)
        return made, new, await client.get(HORIZONTALPODAUTOSCALERS_V1, "web", "default")

    made, new, again = run(act)
    assert (made["apiVersion"], made["spec"]["minReplicas"]) == ("autoscaling/v1", 1)
    assert new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert again["spec"]["targetCPUUtilizationPercentage"] == 60
    assert "stabilizationWindowSeconds" in again["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/behavior"]


def test_nothing_is_lost_on_the_way_to_v1_and_back() -> None:
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1"}},
    }
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 3}}}
    whole = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {**SPEC, "metrics": [cpu, memory], "behavior": {"scaleUp": {"selectPolicy": "Min"}}},
        "status": {"desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}]},
    }
    assert to_v2(from_v2(whole)) == whole
