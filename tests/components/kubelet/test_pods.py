"""Pods on a real node: processes, namespaces, packets. Names of pods differ, so the order does not matter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from kubewire.components.kubeapi.resources import CONFIGMAPS, NODES, PODS, SECRETS, KubeObject
from tests.components.kubelet.kubelet_node import (
    CONFLIST,
    NODE_IP,
    Node,
    condition,
    is_ready,
    on_node,
    simple_pod,
    sleeper,
    status,
)
from tests.existing import existing

NOT_READY = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)


def httpd(name: str = "app", **fields: Any) -> Any:
    # By a shell that ends on SIGTERM: as PID 1 httpd itself would be killed only after the grace period.
    command = ["sh", "-c", "trap 'exit 0' TERM; busybox httpd -f -p 8080 -h /srv & wait"]
    # A pod that is ready has a server that listens.
    listens = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    mounts = [{"name": "www", "mountPath": "/srv"}]
    return {"name": name, "command": command, "volumeMounts": mounts, **listens, **fields}


WWW = [{"name": "www", "emptyDir": {}}]


@on_node
async def test_a_node_is_ready_as_long_as_it_has_a_network(node: Node) -> None:
    await node.ready_node()
    node.set_network(None)
    lost = await node.until(lambda: node.node_condition("False"), "the node is not ready")
    assert existing(condition(lost, "Ready"))["message"] == NOT_READY
    await node.create(simple_pod("early"))
    await node.event("early", "NetworkNotReady", NOT_READY)
    found = await node.ready_node()
    assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "worker-1"
    assert found["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.2"
    await node.pod_where("early", is_ready, "starts when the network is there")


@on_node
async def test_a_node_that_was_deleted_is_not_registered_again_until_the_kubelet_starts(node: Node) -> None:
    await node.ready_node()
    await node.client.delete(NODES, "worker-1")
    node.set_network(None)  # a change of the status, which the kubelet writes at once

    async def told() -> bool:
        return "Error updating node status, will retry" in node.logs()

    await node.until(told, "the kubelet has seen that its Node is gone")
    # Made by hand, it is taken as it is, with the whole status; a registration would have been in the way.
    made: Any = {"metadata": {"name": "worker-1", "labels": {"made": "by-hand"}}}
    await node.client.create(NODES, made)
    node.set_network(CONFLIST)
    taken: Any = await node.until(lambda: node.node_condition("True"), "the new Node is ready")
    assert taken["metadata"]["labels"] == {"made": "by-hand"}
    assert taken["status"]["addresses"]
    await node.client.delete(NODES, "worker-1")
    node.kill_kubelet()
    node.start_kubelet()
    again: Any = await node.until(lambda: node.node_condition("True"), "the kubelet has registered")
    assert again["metadata"]["labels"]["kubernetes.io/hostname"] == "worker-1"


@on_node
async def test_a_pod_that_the_node_cannot_take_fails_with_upstreams_reason(node: Node) -> None:
    await node.ready_node()
    port = {"name": "app", "command": ["sleep", "3600"], "ports": [{"containerPort": 1, "hostPort": 7654}]}
    await node.running(simple_pod("first", port))
    await node.client.create(PODS, simple_pod("second", port))

    async def failed() -> KubeObject | None:
        found = await node.get("second")
        return found if found["status"].get("phase") == "Failed" else None

    found: Any = await node.until(failed, "the second pod is rejected")
    text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    assert (found["status"]["reason"], found["status"]["message"]) == ("NodePorts", f"Pod was rejected: {text}")
    await node.event("second", "NodePorts", text)
    # A label that the Node has just got is seen.
    await node.client.patch(NODES, "worker-1", {"metadata": {"labels": {"disk": "fast"}}})
    await node.running(simple_pod("chosen", sleeper("app"), nodeSelector={"disk": "fast"}))
    await node.delete("first", grace=0)


@on_node
async def test_a_critical_pod_ends_an_ordinary_one_that_has_its_room(node: Node) -> None:
    await node.ready_node()
    capacity: Any = await node.client.get(NODES, "worker-1")
    asked = {"resources": {"requests": {"cpu": capacity["status"]["allocatable"]["cpu"]}}}
    await node.running(simple_pod("ordinary", {**sleeper("app"), **asked}))
    await node.running(simple_pod("critical", {**sleeper("app"), **asked}, priorityClassName="system-node-critical"))
    found = await node.pod_where("ordinary", lambda pod: pod["status"]["phase"] == "Failed", "has ended")
    text = "Preempted in order to admit critical pod"
    assert (found["status"]["reason"], found["status"]["message"]) == ("Preempting", text)
    target = condition(found, "DisruptionTarget")
    assert target is not None and (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    await node.event("ordinary", "Preempting", text)
    await node.delete("critical", grace=0)


@on_node
async def test_a_pod_has_an_address_of_its_own_and_answers_there(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("www", httpd(), volumes=WWW))
    ip = pod["status"]["podIP"]
    assert ip.startswith("10.244.1.") and pod["status"]["hostIP"] == NODE_IP
    assert f"inet {ip}/24" in await node.output(pod, "app", "ip", "addr", "show", "eth0")
    await node.output(pod, "app", "sh", "-c", "echo hello > /srv/index.html")
    other = await node.running(simple_pod("visitor"))
    assert await node.output(other, "app", "busybox", "wget", "-qO-", f"http://{ip}:8080/") == "hello\n"


@on_node
async def test_containers_share_network_and_host_name_but_not_processes(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("two", httpd("web"), sleeper("side"), volumes=WWW, hostname="h"))
    get = "http://127.0.0.1:8080/missing"
    assert "404" in await node.output(pod, "side", "busybox", "wget", "-qO-", get)
    assert await node.output(pod, "side", "hostname") == await node.output(pod, "web", "hostname") == "h\n"
    assert "httpd" not in await node.output(pod, "side", "busybox", "ps")


@on_node
async def test_share_process_namespace(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("shared", sleeper("a"), sleeper("b"), shareProcessNamespace=True))
    seen = await node.output(pod, "a", "busybox", "ps")
    assert seen.count("sleep 3600") >= 2


@on_node
async def test_a_host_network_pod_has_the_nodes_address(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("host", hostNetwork=True))
    assert pod["status"]["podIP"] == NODE_IP
    assert NODE_IP in await node.output(pod, "app", "ip", "addr", "show", "eth0")
    assert await node.output(pod, "app", "hostname") == "worker-1\n"


@on_node
async def test_a_host_port_leads_to_the_pod(node: Node) -> None:
    await node.ready_node()
    ports = [{"containerPort": 8080, "hostPort": 18080}]
    await node.running(simple_pod("hostport", httpd(ports=ports), volumes=WWW, terminationGracePeriodSeconds=1))

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(NODE_IP, 18080)
        except OSError:
            return False
        writer.close()
        return True

    await node.until(answers, "the host port to lead to the pod's server")
    await node.delete("hostport")
    await node.gone("hostport")
    assert not await answers(), "the host port still leads somewhere"


@on_node
async def test_an_app_container_restarts_and_the_address_stays(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("crash"))
    first = status(pod, "app")["containerID"]
    os.kill(await pid_of(node, pod, "app"), signal.SIGKILL)
    again = await node.pod_where(
        "crash", lambda p: is_ready(p) and status(p, "app")["containerID"] != first, "runs again"
    )
    found = status(again, "app")
    assert found["restartCount"] == 1
    assert found["lastState"]["terminated"]["exitCode"] == 137
    assert found["lastState"]["terminated"]["containerID"] == first
    assert again["status"]["podIP"] == pod["status"]["podIP"]


async def pid_of(node: Node, pod: KubeObject, container: str) -> int:
    for process in await node.processes(pod):
        if process.running and process.labels.get("io.kubernetes.container.name", "") == container:
            return process.pid
    raise AssertionError(f"no process of {container!r}")


@on_node
async def test_a_container_that_crashes_again_and_again_is_held_back(node: Node) -> None:
    await node.ready_node()
    failing = {"name": "app", "command": ["sh", "-c", "echo oops > /dev/termination-log; exit 3"]}
    created = await node.create(simple_pod("looping", failing))

    def backing_off(pod: KubeObject) -> bool:
        return status(pod, "app").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"

    pod = await node.pod_where("looping", backing_off, "CrashLoopBackOff")
    found, uid = status(pod, "app"), created["metadata"]["uid"]
    assert found["state"]["waiting"]["message"] == (
        f"back-off 10s restarting failed container=app pod=looping_default({uid})"
    )
    assert found["restartCount"] == 1
    ended = found["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "oops\n")
    assert pod["status"]["phase"] == "Running"
    await node.event("looping", "BackOff", "Back-off restarting failed container app in pod looping_default")


@on_node
async def test_killing_pause_makes_a_new_sandbox_with_a_new_address(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("pausing"))
    before = set(Path("/run/netns").iterdir())
    os.kill(await pid_of(node, pod, ""), signal.SIGKILL)
    again = await node.pod_where(
        "pausing",
        lambda p: is_ready(p) and p["status"]["podIP"] != pod["status"]["podIP"],
        "has a new address",
    )
    assert status(again, "app")["restartCount"] == 1
    await node.event("pausing", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
    after = set(Path("/run/netns").iterdir())
    assert len(after) == len(before), "the old namespace was unpinned"
    await node.delete("pausing")
    await node.gone("pausing")
    leases = [path.name for path in Path("/var/lib/cni/networks/test").glob("10.*")]
    assert again["status"]["podIP"] not in leases and pod["status"]["podIP"] not in leases


@on_node
async def test_a_killed_kubelet_adopts_what_runs(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("adopted"))
    other = await node.running(simple_pod("abandoned"))
    node.kill_kubelet()
    await node.delete("abandoned", grace=0)
    os.kill(await pid_of(node, pod, "app"), 0)
    pids = {p.pid for p in await node.processes(pod)}
    node.start_kubelet()
    await node.running(simple_pod("later"))
    same = await node.get("adopted")
    assert {p.pid for p in await node.processes(pod) if p.running} == pids
    assert status(same, "app")["restartCount"] == 0 and is_ready(same)

    async def ended() -> bool:
        return not await node.processes(other)

    await node.until(ended, "the pod deleted meanwhile is ended")
    leases = [path.name for path in Path("/var/lib/cni/networks/test").glob("10.*")]
    assert other["status"]["podIP"] not in leases and same["status"]["podIP"] in leases


@on_node
async def test_a_failed_add_is_told_and_tried_again(node: Node) -> None:
    await node.ready_node()
    pinned = set(Path("/run/netns").iterdir())
    plugins = [{**CONFLIST["plugins"][0], "bridge": "lo"}]
    node.set_network({**CONFLIST, "plugins": plugins})
    await node.create(simple_pod("unwired"))
    event = await node.event("unwired", "FailedCreatePodSandBox", 'plugin type="bridge" failed (add): ')
    assert event["message"].startswith(
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
    )
    assert status(await node.get("unwired"), "app").get("state", {}) in (
        {"waiting": {"reason": "ContainerCreating"}},
        {},
    )
    assert set(Path("/run/netns").iterdir()) == pinned
    node.set_network(CONFLIST)
    await node.pod_where("unwired", is_ready, "starts when ADD works")


@on_node
async def test_an_unknown_image(node: Node) -> None:
    await node.ready_node()
    await node.create(simple_pod("unknown", {"name": "app", "image": "nobody/knows:1"}))

    def pulling_back_off(pod: KubeObject) -> bool:
        return status(pod, "app").get("state", {}).get("waiting", {}).get("reason") == "ImagePullBackOff"

    await node.event("unknown", "Failed", "Error: ErrImagePull")
    pod = await node.pod_where("unknown", pulling_back_off, "ImagePullBackOff")
    assert "images:" in status(pod, "app")["state"]["waiting"]["message"], "the hint how to map it"
    assert pod["status"]["phase"] == "Pending"


@on_node
async def test_init_containers_run_in_order_and_a_sidecar_stays(node: Node) -> None:
    await node.ready_node()
    mount = [{"name": "www", "mountPath": "/w"}]
    step = {"volumeMounts": mount, "image": "busybox:1.36"}
    init = [
        {**step, "name": "one", "command": ["sh", "-c", "echo one >> /w/log"]},
        {**step, **sleeper("side"), "restartPolicy": "Always"},
        {**step, "name": "two", "command": ["sh", "-c", "echo two >> /w/log"]},
    ]
    app = {**sleeper(), "volumeMounts": mount}
    pod = await node.running(simple_pod("stepwise", app, initContainers=init, volumes=WWW))
    assert await node.output(pod, "app", "cat", "/w/log") == "one\ntwo\n"
    states = [(s["name"], *s["state"], s["ready"]) for s in pod["status"]["initContainerStatuses"]]
    assert states == [("one", "terminated", True), ("side", "running", True), ("two", "terminated", True)]


@on_node
async def test_a_job_like_pod_succeeds_and_its_sidecar_is_ended(node: Node) -> None:
    await node.ready_node()
    init = [{**sleeper("side"), "restartPolicy": "Always"}]
    app = {"name": "app", "command": ["sh", "-c", "exit 0"]}
    await node.create(simple_pod("task", app, initContainers=init, restartPolicy="Never"))
    pod = await node.pod_where("task", lambda p: p["status"].get("phase") == "Succeeded", "Succeeded")
    assert existing(condition(pod, "Ready"))["reason"] == "PodCompleted"
    assert status(pod, "app")["state"]["terminated"]["reason"] == "Completed"

    async def all_ended() -> bool:
        return not [p for p in await node.processes(pod) if p.running]

    await node.until(all_ended, "sidecar and pause have ended")


@on_node
async def test_a_failed_pod_and_one_past_its_deadline(node: Node) -> None:
    await node.ready_node()
    failing = {"name": "app", "command": ["sh", "-c", "exit 4"]}
    await node.create(simple_pod("failed", failing, restartPolicy="Never"))
    await node.create(simple_pod("overdue", activeDeadlineSeconds=1))
    failed = await node.pod_where("failed", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert status(failed, "app")["state"]["terminated"]["exitCode"] == 4
    overdue = await node.pod_where("overdue", lambda p: p["status"].get("phase") == "Failed", "Failed")
    assert overdue["status"]["reason"] == "DeadlineExceeded"


async def no_logs(pod: str) -> bool:
    return not list(Path("/var/log/pods").glob(f"default_{pod}_*"))


@on_node
async def test_graceful_termination_runs_the_hook_and_serves_meanwhile(node: Node) -> None:
    await node.ready_node()
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo bye > /w/said; sleep 0.5"]}}}
    volumes = [{"name": "w", "hostPath": {"path": "/run/said", "type": "DirectoryOrCreate"}}]
    app = {**sleeper(), "lifecycle": hook, "volumeMounts": [{"name": "w", "mountPath": "/w"}]}
    await node.running(simple_pod("polite", app, volumes=volumes, terminationGracePeriodSeconds=60))
    begun = time.monotonic()
    await node.delete("polite")
    going = await node.get("polite")
    assert going["metadata"]["deletionTimestamp"] and is_ready(going), "still serves while it terminates"
    await node.gone("polite")
    assert 0.4 < time.monotonic() - begun < 30, "the hook ends, and nothing waits for the rest of the grace period"
    assert Path("/run/said/said").read_text() == "bye\n"
    await node.event("polite", "Killing", "Stopping container app")
    assert not list(Path("/var/lib/kubelet/pods").glob(going["metadata"]["uid"]))
    # The API is told first, then what is left on the node goes.
    await node.until(lambda: no_logs("polite"), "the logs are gone")


@on_node
async def test_a_container_that_ignores_sigterm_is_killed_after_its_grace_period(node: Node) -> None:
    await node.ready_node()
    stubborn = {"name": "app", "command": ["sh", "-c", "trap '' TERM; while true; do sleep 1; done"]}
    await node.running(simple_pod("stubborn", stubborn, terminationGracePeriodSeconds=1))
    begun = time.monotonic()
    await node.delete("stubborn")
    await node.gone("stubborn")
    assert time.monotonic() - begun > 1.9, "two seconds is the least there is"


@on_node
async def test_liveness_restarts_and_readiness_takes_out(node: Node) -> None:
    await node.ready_node()
    live = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    ready = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    script = "touch /tmp/alive /tmp/ready; trap 'exit 0' TERM; sleep 3600 & wait"
    app = {"name": "app", "command": ["sh", "-c", script], "livenessProbe": live, "readinessProbe": ready}
    pod = await node.running(simple_pod("probed", app))
    await node.output(pod, "app", "rm", "/tmp/alive")
    again = await node.pod_where("probed", lambda p: is_ready(p) and status(p, "app")["restartCount"] == 1, "restarted")
    await node.event("probed", "Killing", "Container app failed liveness probe, will be restarted")
    await node.output(again, "app", "rm", "/tmp/ready")
    out = await node.pod_where("probed", lambda p: not is_ready(p), "not ready", 20)
    assert existing(condition(out, "Ready"))["message"] == "containers with unready status: [app]"
    assert status(out, "app")["restartCount"] == 1


@on_node
async def test_an_http_readiness_probe_says_why_it_fails(node: Node) -> None:
    await node.ready_node()
    probe = {"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1}
    app = httpd(readinessProbe=probe, ports=[{"name": "web", "containerPort": 8080}])
    created = await node.create(simple_pod("unhealthy", app, volumes=WWW))
    await node.event("unhealthy", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")
    pod = await node.pod_where("unhealthy", lambda p: status(p, "app").get("started"), "has started")
    assert not is_ready(pod)
    await node.output(pod, "app", "touch", "/srv/healthz")
    await node.pod_where("unhealthy", is_ready, "ready when the answer is 200")
    assert created["metadata"]["uid"]


@on_node
async def test_a_startup_probe_holds_the_others_back(node: Node) -> None:
    await node.ready_node()
    startup = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    live = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    app = {**sleeper(), "startupProbe": startup, "livenessProbe": live}
    await node.create(simple_pod("slow", app))
    await node.event("slow", "Unhealthy", "Startup probe failed")
    pod = await node.pod_where("slow", lambda p: status(p, "app").get("started") is False, "has not started")
    assert status(pod, "app")["restartCount"] == 0
    await node.output(pod, "app", "touch", "/tmp/up")
    await node.event("slow", "Killing", "failed liveness probe")


@on_node
async def test_volumes_live_updates_and_what_is_missing(node: Node) -> None:
    await node.ready_node()
    volumes = [
        {"name": "c", "configMap": {"name": "settings", "items": [{"key": "k", "path": "deep/k"}]}},
        {"name": "s", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "ip", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    mounts.append({"name": "c", "mountPath": "/v/one", "subPath": "deep/k"})
    app = {**sleeper(), "volumeMounts": mounts}
    await node.create(simple_pod("voluminous", app, volumes=volumes))
    await node.event(
        "voluminous", "FailedMount", 'MountVolume.SetUp failed for volume "c" : configmap "settings" not found'
    )
    head: Any = {"apiVersion": "v1", "metadata": {"name": "settings", "namespace": "default"}}
    await node.client.create(CONFIGMAPS, head | {"kind": "ConfigMap", "data": {"k": "old"}})
    keys: Any = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "default"}}
    await node.client.create(SECRETS, keys | {"data": {"p": "c2VjcmV0"}})
    pod = await node.pod_where("voluminous", is_ready, "starts when they are there")
    read = (
        "cat /v/c/deep/k /v/s/p /v/one /v/d/ip; stat -L -c ' %a' /v/s/p; grep -c 'tmpfs /v/m\\|/v/m tmpfs' /proc/mounts"
    )
    assert await node.output(pod, "app", "sh", "-c", read) == "oldsecretoldvoluminous 400\n1\n"
    write = "for f in /v/c/x /v/s/x /v/d/x /v/one /v/m/x; do (echo new > $f) 2>/dev/null && echo $f; done"
    assert await node.output(pod, "app", "sh", "-c", write) == "/v/m/x\n", "what the kubelet writes is read-only"
    await node.client.patch(CONFIGMAPS, "settings", {"data": {"k": "new"}}, "default")

    async def updated() -> bool:
        return await node.output(pod, "app", "cat", "/v/c/deep/k") == "new"

    await node.until(updated, "the file follows the ConfigMap")
    assert await node.output(pod, "app", "cat", "/v/one") == "old", "a subPath does not"


@on_node
async def test_a_missing_config_map_in_env_is_a_config_error(node: Node) -> None:
    await node.ready_node()
    app = {**sleeper(), "envFrom": [{"configMapRef": {"name": "absent"}}]}
    await node.create(simple_pod("misconfigured", app))
    pod = await node.pod_where("misconfigured", lambda p: "waiting" in status(p, "app").get("state", {}), "waits")
    await node.event("misconfigured", "Failed", 'Error: configmap "absent" not found')
    pod = await node.get("misconfigured")
    assert status(pod, "app")["state"]["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": 'configmap "absent" not found',
    }
    head: Any = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "absent", "namespace": "default"}}
    await node.client.create(CONFIGMAPS, head | {"data": {"A": "1"}})
    await node.pod_where("misconfigured", is_ready, "starts when it is there")


@on_node
async def test_readiness_gates_belong_to_others(node: Node) -> None:
    await node.ready_node()
    await node.create(simple_pod("gated", readinessGates=[{"conditionType": "example.com/ok"}]))
    pod = await node.pod_where("gated", lambda p: condition(p, "Ready"), "has a status")
    pod = await node.pod_where(
        "gated", lambda p: existing(condition(p, "ContainersReady"))["status"] == "True", "containers are ready"
    )
    assert existing(condition(pod, "Ready"))["reason"] == "ReadinessGatesNotReady"
    gate = {"type": "example.com/ok", "status": "True"}
    await node.client.patch(
        PODS,
        "gated",
        {"status": {"conditions": [gate]}},
        "default",
        subresource="status",
        content_type="application/strategic-merge-patch+json",
    )
    await node.pod_where("gated", is_ready, "ready when the gate is")


@on_node
async def test_a_program_that_is_not_there(node: Node) -> None:
    await node.ready_node()
    await node.create(simple_pod("typo", {"name": "app", "command": ["/no/such"]}, restartPolicy="Never"))
    pod = await node.pod_where("typo", lambda p: p["status"].get("phase") == "Failed", "Failed")
    ended = status(pod, "app")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no such file or directory" in ended["message"]


@on_node
async def test_static_pods_of_the_manifest_folder(node: Node) -> None:
    await node.ready_node()
    manifest = simple_pod("fixed")
    del manifest["spec"]["nodeName"]
    path = Path("/etc/kubernetes/manifests/fixed.json")
    path.write_text(json.dumps(manifest))
    mirror = await node.pod_where("fixed-worker-1", is_ready, "runs, with a mirror pod in the API")
    assert mirror["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    path.unlink()
    await node.gone("fixed-worker-1")
