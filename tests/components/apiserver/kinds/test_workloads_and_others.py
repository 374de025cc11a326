"""Workloads, nodes, namespaces, config maps, secrets and the kinds that are only stored."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver import openapi
from kubewire.components.apiserver.kinds import KINDS
from tests.components.apiserver.kinds.conftest import kind_of

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "a", "image": "x"}]},
}


def workload(**spec: Any) -> dict[str, Any]:
    return {"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE, **spec}}


JOB_TEMPLATE = {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
MISMATCH = 'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`'
MOUNTING = {"containers": [{"name": "a", "image": "x", "volumeMounts": [{"name": "www", "mountPath": "/www"}]}]}
OTHER = {"matchLabels": {"app": "other"}}

CASES = [
    *[
        pytest.param(kind, workload(), [], id=f"a {kind}")
        for kind in ("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet")
    ],
    *[
        pytest.param(kind, workload(selector=OTHER), [MISMATCH], id=f"a {kind} selects its own pods")
        for kind in ("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet")
    ],
    pytest.param(
        "StatefulSet",
        workload(template={**TEMPLATE, "spec": MOUNTING}),
        [],
        id="a StatefulSet's volumes may come from its claim templates",
    ),
    pytest.param(
        "Deployment",
        workload(template={**TEMPLATE, "spec": MOUNTING}),
        ['spec.template.spec.containers[0].volumeMounts[0].name: Not found: "www"'],
        id="a Deployment's may not",
    ),
    pytest.param(
        "Deployment",
        {"spec": {"template": TEMPLATE}},
        ["spec.selector: Required value", MISMATCH],
        id="a Deployment has a selector",
    ),
    pytest.param(
        "Deployment",
        workload(selector={}),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        id="which is not empty",
    ),
    pytest.param(
        "Deployment",
        workload(replicas=-1),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        id="a Deployment has no negative size",
    ),
    pytest.param(
        "Deployment",
        workload(strategy={"type": "Recreate", "rollingUpdate": {}}),
        ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        id="Recreate does not roll",
    ),
    pytest.param(
        "Deployment",
        workload(strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        id="a rollout must be able to move",
    ),
    pytest.param(
        "Deployment",
        workload(template={**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}),
        ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
        id="a Deployment's pods restart",
    ),
    pytest.param(
        "Job",
        {"metadata": {"uid": "u"}, "spec": {"template": {"spec": TEMPLATE["spec"]}}},
        ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
        id="a Job's pods end",
    ),
    pytest.param("Job", {"metadata": {"uid": "u"}, "spec": {"template": JOB_TEMPLATE}}, [], id="a Job"),
    pytest.param(
        "ConfigMap",
        {"data": {"a/b": "c"}},
        [
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' "
            "or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        ],
        id="keys are file names",
    ),
    pytest.param(
        "ConfigMap",
        {"data": {"a": "x" * (1024 * 1024 + 1)}},
        ["[]: Too long: may not be more than 1048576 bytes"],
        id="a ConfigMap has a mebibyte",
    ),
    pytest.param(
        "Secret",
        {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}},
        ["data[tls.key]: Required value"],
        id="a TLS secret has a key",
    ),
    pytest.param(
        "Node",
        {"spec": {"taints": [{"key": "a", "effect": "Never"}]}},
        [
            'metadata.taints[0].effect: Unsupported value: "Never": supported values: '
            '"NoSchedule", "PreferNoSchedule", "NoExecute"'
        ],
        id="taints have effects",
    ),
    pytest.param(
        "CustomResourceDefinition",
        {
            "metadata": {"name": "a.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
                ],
            },
        },
        ['metadata.name: Invalid value: "a.example.com": must be spec.names.plural+"."+spec.group'],
        id="a definition is called by its plural and group",
    ),
]


@pytest.mark.parametrize(("kind", "obj", "messages"), CASES)
def test_create(complaints: Any, kind: str, obj: dict[str, Any], messages: list[str]) -> None:
    assert complaints(kind, obj) == messages


IMMUTABLE = 'spec.selector: Invalid value: {"matchLabels":{"app":"web","x":"y"}}: field is immutable'
MORE_LABELS = {
    "selector": {"matchLabels": {"app": "web", "x": "y"}},
    "template": {**TEMPLATE, "metadata": {"labels": {"app": "web", "x": "y"}}},
}
CHANGES = [
    pytest.param("Deployment", workload(), workload(replicas=3), [], id="a Deployment of another size"),
    *[
        pytest.param(kind, workload(), workload(**MORE_LABELS), [IMMUTABLE], id=f"a {kind}'s selector stays")
        for kind in ("Deployment", "ReplicaSet", "DaemonSet")
    ],
    pytest.param(
        "StatefulSet",
        workload(),
        workload(serviceName="web"),
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' "
            "are forbidden"
        ],
        id="a StatefulSet's Service stays",
    ),
    pytest.param(
        "ConfigMap",
        {"immutable": True, "data": {"a": "b"}},
        {"data": {"a": "c"}},
        [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
        id="an immutable ConfigMap stays",
    ),
    pytest.param(
        "Secret", {}, {"type": "a/b"}, ['type: Invalid value: "a/b": field is immutable'], id="a secret's type stays"
    ),
    pytest.param(
        "Node",
        {"spec": {"podCIDR": "10.244.0.0/24"}},
        {"spec": {"podCIDR": "10.244.1.0/24"}},
        ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'],
        id="a node's range stays",
    ),
    pytest.param(
        "ClusterRoleBinding",
        {"roleRef": {"kind": "ClusterRole", "name": "a"}},
        {"roleRef": {"kind": "ClusterRole", "name": "b"}},
        [
            'roleRef: Invalid value: {"kind":"ClusterRole","name":"b","apiGroup":"rbac.authorization.k8s.io"}: '
            "cannot change roleRef"
        ],
        id="a binding's role stays",
    ),
]


@pytest.mark.parametrize(("kind", "old", "new", "messages"), CHANGES)
def test_update(update_complaints: Any, kind: str, old: Any, new: Any, messages: list[str]) -> None:
    assert update_complaints(kind, old, new) == messages


@pytest.mark.parametrize(
    ("kind", "status", "shown"),
    [
        ("Deployment", {"replicas": 0, "readyReplicas": 0, "terminatingReplicas": 0}, {"terminatingReplicas": 0}),
        ("ReplicaSet", {"replicas": 0, "readyReplicas": 0}, {"replicas": 0}),
        (
            "StatefulSet",
            {"replicas": 0, "availableReplicas": 0, "currentReplicas": 0, "readyReplicas": 1},
            {"replicas": 0, "availableReplicas": 0, "readyReplicas": 1},
        ),
        ("DaemonSet", {"numberReady": 0, "numberUnavailable": 0}, {"numberReady": 0}),
        ("Job", {"active": 0, "ready": 0, "failed": 2}, {"ready": 0, "failed": 2}),
    ],
)
def test_zeros_that_go_omits_are_not_in_the_status(kind: str, status: dict[str, int], shown: dict[str, int]) -> None:
    obj = workload() | {"metadata": {"name": "a", "uid": "u"}, "status": dict(status)}
    assert openapi.decode(obj, "batch" if kind == "Job" else "apps", "v1", kind).error == ""
    assert obj["status"] == shown


def test_deployment_defaults(created: Any) -> None:
    spec = created("Deployment", workload())["spec"]
    assert {key: spec[key] for key in ("replicas", "strategy", "revisionHistoryLimit", "progressDeadlineSeconds")} == {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }


def test_a_job_selects_its_pods_by_its_uid(created: Any) -> None:
    spec = created("Job", {"metadata": {"uid": "u-1"}, "spec": {"template": JOB_TEMPLATE}})["spec"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert spec["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": "u-1",
        "controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "web",
        "job-name": "web",
    }


def test_a_namespace_is_labelled_with_its_name_and_holds_its_finalizer(created: Any) -> None:
    namespace = created("Namespace", {})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "web"}
    assert namespace["spec"] == {"finalizers": ["kubernetes"]}


def test_string_data_becomes_data(created: Any) -> None:
    secret = created("Secret", {"stringData": {"a": "b"}, "data": {"c": "ZA=="}})
    assert secret["data"] == {"a": "Yg==", "c": "ZA=="}
    assert "stringData" not in secret


def test_nulls_are_absent(created: Any) -> None:
    pod = created("Pod", {"spec": {"containers": [{"name": "a", "image": "x", "resources": None}], "dnsPolicy": None}})
    assert pod["spec"]["dnsPolicy"] == "ClusterFirst"
    assert pod["spec"]["containers"][0]["resources"] == {}


READY = {
    "conditions": [{"type": "Ready", "status": "True"}],
    "addresses": [{"type": "InternalIP", "address": "172.18.0.3"}],
}
ROWS = [
    pytest.param(
        "Node", {"status": READY}, {"Status": "Ready", "Roles": "<none>", "Internal-IP": "172.18.0.3"}, id="node"
    ),
    pytest.param(
        "Node",
        {
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True},
            "status": READY,
        },
        {"Status": "Ready,SchedulingDisabled", "Roles": "control-plane"},
        id="cordoned node",
    ),
    pytest.param(
        "Deployment",
        {**workload(replicas=3), "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}},
        {
            "Ready": "2/3",
            "Up-to-date": 3,
            "Available": 2,
            "Age": "60m",
            "Containers": "a",
            "Images": "x",
            "Selector": "app=web",
        },
        id="deployment",
    ),
    pytest.param(
        "Job",
        {
            **workload(completions=1),
            "status": {
                "succeeded": 1,
                "startTime": "2026-01-01T00:00:00Z",
                "completionTime": "2026-01-01T00:00:05Z",
                "conditions": [{"type": "Complete", "status": "True"}],
            },
        },
        {"Status": "Complete", "Completions": "1/1", "Duration": "5s"},
        id="job",
    ),
    pytest.param("ConfigMap", {"data": {"a": "b"}, "binaryData": {"c": ""}}, {"Data": 2}, id="config map"),
    pytest.param(
        "Event",
        {
            "involvedObject": {"kind": "Pod", "name": "a"},
            "reason": "Started",
            "message": " ok ",
            "type": "Normal",
            "count": 3,
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T00:59:00Z",
            "lastTimestamp": "2026-01-01T00:59:58Z",
        },
        {
            "Last Seen": "2s",
            "Object": "pod/a",
            "Message": "ok",
            "Source": "kubelet, n",
            "First Seen": "60s",
            "Count": 3,
        },
        id="event",
    ),
    pytest.param("Lease", {"spec": {"holderIdentity": "n"}}, {"Holder": "n"}, id="lease"),
    pytest.param(
        "StatefulSet", {**workload(replicas=2), "status": {"readyReplicas": 1}}, {"Ready": "1/2"}, id="stateful set"
    ),
    pytest.param(
        "ResourceQuota",
        {"status": {"hard": {"pods": "3", "limits.cpu": "1"}, "used": {"pods": "1"}}},
        {"Request": "pods: 1/3", "Limit": "limits.cpu: 0/1"},
        id="quota",
    ),
]


@pytest.mark.parametrize(("kind", "obj", "cells"), ROWS)
def test_row(row_of: Any, kind: str, obj: dict[str, Any], cells: dict[str, Any]) -> None:
    row = row_of(kind, obj)
    assert {name: row[name] for name in cells} == cells


@pytest.mark.parametrize("name", sorted({spec.resource.kind for spec in KINDS}))
def test_every_kind_takes_an_empty_object(created: Any, row_of: Any, name: str) -> None:
    obj, spec = created(name, {}), kind_of(name)
    spec.validate_create(obj)
    spec.validate_update(obj, obj)
    spec.prepare_status_update(obj, obj)
    spec.validate_status_update(obj, obj)
    assert len(row_of(name, obj)) == len(spec.columns)
    assert all(isinstance(value, str) for value in spec.selectable_fields(obj).values())
    assert spec.selectable_fields({"metadata": {}}).keys() == spec.selectable_fields(obj).keys()
