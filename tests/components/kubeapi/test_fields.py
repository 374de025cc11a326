from __future__ import annotations

from kubewire.components.kubeapi.fields import only


def test_only_the_named_fields_are_left_and_the_object_stays_whole() -> None:
    spec = {"clusterIP": "10.96.0.10", "ports": [{"port": 53}], "type": "ClusterIP"}
    assert only(("clusterIP", "ports", "absent"), spec) == {"clusterIP": "10.96.0.10", "ports": [{"port": 53}]}
    assert spec["type"] == "ClusterIP"
