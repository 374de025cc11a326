"""Pods: defaults, validation on create and update, and their row."""

from __future__ import annotations

import copy
from typing import Any

import pytest


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "app", "image": "nginx"}], **spec}}


def container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "app", "image": "nginx", **fields}])


# --- defaults


def test_a_pod_gets_the_defaults_of_the_api(created: Any) -> None:
    made = created("Pod", container(ports=[{"containerPort": 80}], livenessProbe={"httpGet": {"port": 80}}))
    assert made["spec"] == {
        "containers": [
            {
                "name": "app",
                "image": "nginx",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {},
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": True,
    }
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(created: Any, image: str, policy: str) -> None:
    made = created("Pod", pod(containers=[{"name": "a", "image": image}]))
    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_host_network_makes_container_ports_host_ports(created: Any) -> None:
    made = created(
        "Pod",
        {**container(ports=[{"containerPort": 80}]), "metadata": {}}
        | {"spec": {**container(ports=[{"containerPort": 80}])["spec"], "hostNetwork": True}},
    )
    assert made["spec"]["containers"][0]["ports"][0]["hostPort"] == 80


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        pytest.param({}, "BestEffort", id="nothing asked for"),
        pytest.param({"requests": {"cpu": "1"}}, "Burstable", id="a request only"),
        pytest.param({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed", id="limits become requests"),
        pytest.param(
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}},
            "Guaranteed",
            id="the same amount in other words",
        ),
        pytest.param({"limits": {"cpu": "1"}}, "Burstable", id="one limit is not enough"),
    ],
)
def test_quality_of_service(created: Any, resources: dict[str, Any], qos: str) -> None:
    assert created("Pod", container(resources=resources))["status"]["qosClass"] == qos


# --- validation

CASES = [
    pytest.param(pod(), [], id="a plain pod is fine"),
    pytest.param(pod(containers=[]), ["spec.containers: Required value"], id="a pod has containers"),
    pytest.param(
        pod(containers=[{"name": "app"}]), ["spec.containers[0].image: Required value"], id="a container has an image"
    ),
    pytest.param(
        pod(containers=[{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]),
        ['spec.containers[1].name: Duplicate value: "a"'],
        id="container names are unique",
    ),
    pytest.param(
        pod(initContainers=[{"name": "app", "image": "x"}]),
        ['spec.initContainers[0].name: Duplicate value: "app"'],
        id="init containers share the names",
    ),
    pytest.param(
        pod(initContainers=[{"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["true"]}}}]),
        [
            "spec.initContainers[0].readinessProbe: Forbidden: "
            "may not be set for init containers without restartPolicy=Always"
        ],
        id="only sidecars have probes",
    ),
    pytest.param(
        container(ports=[{"containerPort": 70000}]),
        ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        id="ports are 16 bits",
    ),
    pytest.param(
        container(ports=[{"containerPort": 80, "name": "web"}, {"containerPort": 81, "name": "web"}]),
        ['spec.containers[0].ports[1].name: Duplicate value: "web"'],
        id="port names are unique",
    ),
    pytest.param(
        container(ports=[{"containerPort": 80, "protocol": "ICMP"}]),
        ['spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
        id="ports are TCP, UDP or SCTP",
    ),
    pytest.param(
        container(ports=[{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]),
        ['spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"'],
        id="a host port is taken once",
    ),
    pytest.param(
        pod(
            hostNetwork=True, containers=[{"name": "a", "image": "x", "ports": [{"containerPort": 80, "hostPort": 81}]}]
        ),
        [
            "spec.containers[0].ports[0].hostPort: Invalid value: 81: "
            "must match `containerPort` when `hostNetwork` is true"
        ],
        id="in the node's network both ports are one",
    ),
    pytest.param(
        container(livenessProbe={"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}),
        ["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
        id="a probe has one handler",
    ),
    pytest.param(
        container(livenessProbe={}),
        ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        id="a probe has a handler",
    ),
    pytest.param(
        container(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2}),
        ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        id="liveness needs one success",
    ),
    pytest.param(
        container(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        ['spec.containers[0].volumeMounts[0].name: Not found: "data"'],
        id="a mount needs its volume",
    ),
    pytest.param(
        pod(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
        ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        id="a volume has one source",
    ),
    pytest.param(
        container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]),
        [
            'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.foo": supported values: '
            '"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", '
            '"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"'
        ],
        id="the downward API has certain fields",
    ),
    pytest.param(
        pod(dnsPolicy="None"),
        ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        id="no DNS policy, so a DNS configuration",
    ),
    pytest.param(
        pod(dnsConfig={"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}),
        [
            'spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]: '
            "must not have more than 3 nameservers"
        ],
        id="libc knows three name servers",
    ),
    pytest.param(
        pod(dnsPolicy="Cluster"),
        [
            'spec.dnsPolicy: Unsupported value: "Cluster": supported values: '
            '"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"'
        ],
        id="DNS policies have names",
    ),
    pytest.param(
        pod(restartPolicy="Sometimes"),
        ['spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'],
        id="restart policies have names",
    ),
    pytest.param(
        pod(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        ["spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"],
        id="Exists has no value",
    ),
    pytest.param(
        container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
        id="requests fit into limits",
    ),
]


@pytest.mark.parametrize(("obj", "messages"), CASES)
def test_create(complaints: Any, obj: dict[str, Any], messages: list[str]) -> None:
    assert complaints("Pod", obj) == messages


UPDATE_TEXT = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
)
UPDATES = [
    pytest.param({"containers": [{"name": "app", "image": "nginx", "imagePullPolicy": "Always"}]}, [], id="no change"),
    pytest.param({"containers": [{"name": "app", "image": "httpd"}]}, [], id="another image"),
    pytest.param({"tolerations": [{"key": "a", "operator": "Exists"}]}, [], id="one more toleration"),
    pytest.param({"hostNetwork": False}, [], id="false where nothing was"),
    pytest.param({"hostname": "x"}, [UPDATE_TEXT + '  spec.hostname: null -> "x"\n'], id="another host name"),
    pytest.param(
        {"containers": [{"name": "a", "image": "b"}, {"name": "b", "image": "b"}]},
        ["spec.containers: Forbidden: pod updates may not add or remove containers"],
        id="one more container",
    ),
]


@pytest.mark.parametrize(("spec", "messages"), UPDATES)
def test_update(update_complaints: Any, spec: dict[str, Any], messages: list[str]) -> None:
    assert update_complaints("Pod", pod(), pod(**spec)) == messages


# --- rows

RUNNING = {"name": "app", "ready": True, "restartCount": 0, "state": {"running": {}}}


def status(phase: str = "Running", **fields: Any) -> dict[str, Any]:
    return {**pod(), "status": {"phase": phase, **fields}}


def waiting(reason: str, **fields: Any) -> dict[str, Any]:
    return {"name": "app", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason}}, **fields}


def ended(code: int, reason: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "name": "app",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": reason}},
        **fields,
    }


SIDECAR = {"name": "proxy", "image": "x", "restartPolicy": "Always"}
ROWS = [
    pytest.param(status("Pending"), ("0/1", "Pending", "0"), id="nothing known yet"),
    pytest.param(
        status("Pending", containerStatuses=[waiting("ContainerCreating")]),
        ("0/1", "ContainerCreating", "0"),
        id="being created",
    ),
    pytest.param(status(containerStatuses=[RUNNING]), ("1/1", "Running", "0"), id="running"),
    pytest.param(
        status(
            containerStatuses=[
                waiting(
                    "CrashLoopBackOff", restartCount=3, lastState={"terminated": {"finishedAt": "2026-01-01T00:59:55Z"}}
                )
            ]
        ),
        ("0/1", "CrashLoopBackOff", "3 (5s ago)"),
        id="crashing",
    ),
    pytest.param(status("Succeeded", containerStatuses=[ended(0, "Completed")]), ("0/1", "Completed", "0"), id="done"),
    pytest.param(status("Failed", containerStatuses=[ended(1)]), ("0/1", "ExitCode:1", "0"), id="failed"),
    pytest.param(
        status("Pending", initContainerStatuses=[{"name": "i", "state": {"running": {}}, "restartCount": 0}])
        | {"spec": pod(initContainers=[{"name": "i", "image": "x"}])["spec"]},
        ("0/1", "Init:0/1", "0"),
        id="initialising",
    ),
    pytest.param(
        status("Pending", initContainerStatuses=[ended(2, "Error", name="i", restartCount=1)])
        | {"spec": pod(initContainers=[{"name": "i", "image": "x"}])["spec"]},
        ("0/1", "Init:Error", "1"),
        id="an init container failed",
    ),
    pytest.param(
        status(
            containerStatuses=[RUNNING],
            initContainerStatuses=[
                {"name": "proxy", "started": True, "ready": True, "restartCount": 2, "state": {"running": {}}}
            ],
        )
        | {"spec": pod(initContainers=[SIDECAR])["spec"]},
        ("2/2", "Running", "2"),
        id="a sidecar counts",
    ),
    pytest.param(
        status(containerStatuses=[RUNNING])
        | {"metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        ("1/1", "Terminating", "0"),
        id="going",
    ),
    pytest.param(
        status("Succeeded", containerStatuses=[ended(0, "Completed")])
        | {"metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        ("0/1", "Completed", "0"),
        id="done stays done while it goes",
    ),
    pytest.param(status("Failed", reason="Evicted"), ("0/1", "Evicted", "0"), id="the pod's own reason"),
    pytest.param(
        status("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
        ("0/1", "SchedulingGated", "0"),
        id="held back",
    ),
]


@pytest.mark.parametrize(("obj", "cells"), ROWS)
def test_row(row_of: Any, obj: dict[str, Any], cells: tuple[str, str, str]) -> None:
    row = row_of("Pod", copy.deepcopy(obj))
    assert (row["Ready"], row["Status"], row["Restarts"]) == cells


def test_the_wide_row(row_of: Any) -> None:
    obj = status(
        containerStatuses=[RUNNING],
        podIPs=[{"ip": "10.244.1.2"}],
        conditions=[{"type": "example.com/ready", "status": "True"}],
    )
    obj["spec"] |= {"nodeName": "worker-1", "readinessGates": [{"conditionType": "example.com/ready"}]}
    row = row_of("Pod", obj)
    assert (row["IP"], row["Node"], row["Nominated Node"], row["Readiness Gates"]) == (
        "10.244.1.2",
        "worker-1",
        "<none>",
        "1/1",
    )
