"""The kubelet's HTTPS API as the API server uses it, and kubectl through both."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import time
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import kubernetes.client
import kubernetes.config
import kubernetes.stream
import pytest

from kubewire.components.kubelet.images.catalogue import Image, Program
from kubewire.components.kubelet.pod.container_target import RuntimeTarget, can_be_attached_to
from kubewire.components.kubelet.pod.launch import exec_spec
from kubewire.components.kubelet.records import ContainerRecord
from kubewire.components.kubelet.server import no_log
from kubewire.components.kubelet.streaming.descriptors import read_chunks
from kubewire.components.kubelet.streaming.target import TargetError
from kubewire.components.runtime.api import Process, RuntimeApiError, Tty
from tests.components.kubelet.kubelet_node import NODE_IP, Node, on_node, simple_pod, sleeper, status

CHATTY: Any = {
    "name": "app",
    "command": ["sh", "-c", "echo one; echo two >&2; trap 'exit 0' TERM; while ! test -e /tmp/go; do sleep 0.05; done; "
                "echo three; sleep 3600 & wait"],
}  # fmt: skip


async def kubectl(node: Node, *args: str, stdin: bytes = b"") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "kubectl", "--kubeconfig", str(node.api.kubeconfig), *args,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(stdin), 10)
    return process.returncode or 0, output.decode()


def certified(node: Node) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(node.api.authority.certificate))
    context.load_cert_chain(node.api.kubelet_client.certificate, node.api.kubelet_client.key)
    return context


def test_why_there_is_no_log_yet() -> None:
    def said(reason: str) -> str:
        waiting: Any = {"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason}}}]}
        return no_log("p", "app", waiting, previous=False)

    prefix = 'container "app" in pod "p" is waiting to start: '
    assert said("PodInitializing") == prefix + "PodInitializing"
    assert said("ErrImagePull") == prefix + "image can't be pulled"
    assert said("ImagePullBackOff") == prefix + "trying and failing to pull image"
    assert no_log("p", "app", {}, previous=True) == 'previous terminated container "app" in pod "p" not found'


@on_node
async def test_what_a_quick_command_says_on_its_terminal_is_heard(node: Node) -> None:
    """However long it takes from its start until somebody reads."""
    await node.ready_node()
    pod = await node.running(simple_pod("quick", sleeper("app")))
    async with node.runtime() as runtime:

        class Slow:
            async def spawn(self, *args: Any, **fds: Any) -> Process:
                process = await runtime.spawn(*args, **fds)
                await runtime.wait(process.id)
                return process

            def __getattr__(self, name: str) -> Any:
                return getattr(runtime, name)

        container = status(pod, "app")["containerID"].removeprefix("kubewire://")
        record = SimpleNamespace(id=container, image="busybox", running=True)
        state = SimpleNamespace(pod=pod, record=SimpleNamespace(current={"app": record}))
        images = SimpleNamespace(program=lambda image, argv: Program(Image("busybox"), argv=tuple(argv)))
        target = RuntimeTarget(cast(Any, Slow()), cast(Any, images), lambda *_: cast(Any, SimpleNamespace(state=state)))
        session = await target.exec(
            "default", "quick", "app", ["echo", "hello"], stdin=True, stdout=True, stderr=True, tty=True
        )
        said = b"".join([chunk async for chunk in read_chunks(session.stdout)])
        await session.close()
    assert said == b"hello\r\n"


@on_node
async def test_a_terminal_has_a_type(node: Node) -> None:
    await node.ready_node()
    on_screen = {"name": "app", "command": ["sh", "-c", "echo $TERM; sleep 3600"], "tty": True}
    await node.running(simple_pod("screen", on_screen))
    assert "xterm" in (await kubectl(node, "logs", "-f", "--limit-bytes=7", "screen"))[1]
    await node.running(simple_pod("plain", sleeper("app")))
    assert await kubectl(node, "exec", "plain", "--", "sh", "-c", "echo =$TERM=") == (0, "==\n")
    terminal = exec_spec(Program(Image("busybox"), argv=("top",)), "c1", Tty())
    assert terminal.add_env == {"TERM": "xterm"}


@on_node
async def test_references_in_a_command_see_the_pods_own_variables(node: Node) -> None:
    await node.ready_node()
    echo = {
        "name": "app",
        "command": ["sh", "-c", "echo '$(OWN) $(HOSTNAME)'; sleep 3600"],
        "env": [{"name": "OWN", "value": "mine"}],
    }
    await node.running(simple_pod("referring", echo))
    assert (await kubectl(node, "logs", "-f", "--limit-bytes=17", "referring"))[1] == "mine $(HOSTNAME)\n"


@on_node
async def test_logs_exec_and_their_exit_codes(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("chatty", CHATTY))
    assert sorted((await kubectl(node, "logs", "chatty"))[1].split()) == ["one", "two"]
    assert await kubectl(node, "exec", "-i", "chatty", "--", "cat", stdin=b"hello") == (0, "hello")
    code, said = await kubectl(node, "exec", "chatty", "--", "sh", "-c", "exit 3")
    assert code == 3 and "exit code 3" in said
    assert pod["status"]["podIP"] in (await kubectl(node, "get", "pods", "-o", "wide"))[1]
    code, said = await kubectl(node, "exec", "chatty", "-c", "none", "--", "true")
    assert code != 0 and "none" in said


@pytest.mark.parametrize(
    ("exit_code", "ago", "possible"),
    [(None, 0.0, True), (0, 0.5, True), (1, 0.5, True), (0, 1.5, False)],
    ids=["it runs", "it has just ended", "it has just failed", "it ended long ago"],
)
def test_a_container_is_attached_to_until_a_second_after_its_end(
    exit_code: int | None, ago: float, possible: bool
) -> None:
    finished = 0.0 if exit_code is None else 1000.0 - ago
    record = ContainerRecord("app", "1", "i", "i", 0, "s", "h", 1.0, 1.0, finished_at=finished, exit_code=exit_code)
    assert can_be_attached_to(record, 1000.0) == possible


@pytest.mark.parametrize("kept", [True, False], ids=["its output is kept", "the runtime refuses"])
def test_attaching_to_a_container_that_has_just_ended(kept: bool) -> None:
    """As `kubectl run --rm -it` does, which attaches when it has seen that the container runs."""

    class Runtime:
        async def attach(self, process: str, **fds: int | None) -> None:
            if not kept:
                raise RuntimeApiError("process '1' has ended")
            stdout = fds["stdout"]
            assert stdout is not None
            os.write(stdout, b"hello")

    ended = ContainerRecord("app", "1", "i", "i", 0, "s", "h", 1.0, 1.0, finished_at=time.time(), exit_code=0)
    state = SimpleNamespace(record=SimpleNamespace(current={"app": ended}))
    target = RuntimeTarget(cast(Any, Runtime()), cast(Any, None), lambda *_: cast(Any, SimpleNamespace(state=state)))

    async def attach() -> bytes:
        session = await target.attach("ns", "pod", "app", stdin=True, stdout=True, stderr=True, tty=False)
        said = os.read(session.stdout, 100)
        await session.close()
        return said

    if kept:
        assert asyncio.run(attach()) == b"hello"
    else:
        with pytest.raises(TargetError, match="container app not found in pod pod_ns"):
            asyncio.run(attach())


@on_node
async def test_pages_about_the_node(node: Node) -> None:
    await node.ready_node()
    await node.running(simple_pod("counted", sleeper("app")))
    connector = aiohttp.TCPConnector(ssl=certified(node))
    async with aiohttp.ClientSession(f"https://{NODE_IP}:10250", connector=connector) as session:

        async def page(path: str) -> str:
            async with session.get(path) as answer:
                assert answer.status == 200, path
                return await answer.text()

        config = json.loads(await page("/configz"))["kubeletconfig"]
        assert (config["kind"], config["maxPods"], config["syncFrequency"]) == ("KubeletConfiguration", 110, "1m0s")
        assert config["authentication"]["anonymous"]["enabled"] is False
        assert config["containerLogMaxSize"] == "10Mi"
        metrics = await page("/metrics/cadvisor")
        assert re.search(r'^container_memory_working_set_bytes\{container="app".*pod="counted"\} [1-9]', metrics, re.M)
        assert re.search(r'^container_network_receive_bytes_total\{.*interface="eth0".*pod="counted"\} ', metrics, re.M)
        assert re.search(r"^machine_cpu_cores [1-9]", metrics, re.M)
        await page("/healthz")
        assert 'kubernetes_healthcheck{name="syncloop",type="healthz"} 1\n' in await page("/metrics/slis")
        assert '<a href="pods/">pods/</a>' in await page("/logs/")
        assert "counted" in await page("/logs/pods")
        async with session.get("/logs/%2e%2e/%2e%2e/etc/passwd") as answer:
            assert answer.status == 404


@on_node
async def test_the_python_client_forwards_ports_and_runs_commands(node: Node) -> None:
    await node.ready_node()
    serve = "mkdir /www; echo from the pod >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    await node.running(simple_pod("served", {"name": "app", "command": ["sh", "-c", serve], "readinessProbe": probe}))

    def talk() -> tuple[bytes, str | None, str]:
        core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(node.api.kubeconfig)))
        connect = core.connect_get_namespaced_pod_portforward
        forward = kubernetes.stream.portforward(connect, "served", "default", ports="8080,9")
        socket = forward.socket(8080)
        socket.settimeout(10)
        socket.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := socket.recv(4096):
            answer += chunk
        said = kubernetes.stream.stream(
            core.connect_get_namespaced_pod_exec, "served", "default", command=["echo", "hi"], stdout=True, stderr=True
        )
        return answer, forward.error(9), said

    answer, error, said = await asyncio.wait_for(asyncio.to_thread(talk), 30)
    assert answer.endswith(b"from the pod\n")
    assert error is not None and error.startswith("error forwarding port 9 to pod served")
    assert said == "hi\n"


@on_node
async def test_attach_says_nothing_of_the_exit_code_which_is_in_the_pods_status(node: Node) -> None:
    await node.ready_node()
    app = {"name": "app", "stdin": True, "stdinOnce": True, "command": ["sh", "-c", "read line; echo $line; exit 3"]}
    await node.running(simple_pod("asked", app, restartPolicy="Never"))
    code, said = await kubectl(node, "attach", "-i", "asked", stdin=b"hello\n")
    assert code == 0 and said.endswith("hello\n")
    code, said = await kubectl(node, "exec", "asked", "--", "true")
    assert (code, said) != (0, "")
    assert 'container not found ("app")' in said or "completed pod" in said


@on_node
async def test_followed_logs_come_at_once_and_end_with_the_container(node: Node) -> None:
    await node.ready_node()
    pod = await node.running(simple_pod("followed", CHATTY))
    url = f"https://{NODE_IP}:10250/containerLogs/default/followed/app?follow=true&timestamps=true"
    connector = aiohttp.TCPConnector(ssl=certified(node))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        seen = await asyncio.wait_for(response.content.readline(), 5)
        assert seen.endswith(b" one\n") and seen.startswith(b"20")
        await asyncio.wait_for(response.content.readline(), 5)
        await node.output(pod, "app", "touch", "/tmp/go")
        assert (await asyncio.wait_for(response.content.readline(), 5)).endswith(b" three\n")
        await node.delete("followed")
        assert await asyncio.wait_for(response.content.read(), 5) == b""


@on_node
async def test_who_has_no_certificate_is_sent_away(node: Node) -> None:
    await node.ready_node()
    await node.running(simple_pod("known", sleeper()))
    anonymous = ssl.create_default_context(cafile=str(node.api.authority.certificate))
    async with aiohttp.ClientSession() as session:
        for path in ("pods", "metrics", "containerLogs/default/known/app", "exec/default/known/app?command=id"):
            async with session.get(f"https://{NODE_IP}:10250/{path}", ssl=anonymous) as refused:
                assert refused.status == 401, path
        async with session.get("http://127.0.0.1:10248/healthz") as healthy:
            assert await healthy.text() == "ok"
        async with session.get(f"https://{NODE_IP}:10250/pods", ssl=certified(node)) as listed:
            names = [item["metadata"]["name"] for item in (await listed.json())["items"]]
        async with session.get(f"https://{NODE_IP}:10250/metrics", ssl=certified(node)) as shown:
            text = await shown.text()
        async with session.get(f"https://{NODE_IP}:10250/stats/summary", ssl=certified(node)) as shown:
            stats = await shown.json()
    assert "known" in names
    assert "kubelet_running_pods " in text and 'kubelet_node_name{node="worker-1"} 1' in text
    mine = next(pod for pod in stats["pods"] if pod["podRef"]["name"] == "known")
    assert mine["network"]["name"] == "eth0" and mine["containers"][0]["memory"]["rssBytes"] > 0


@on_node
async def test_port_forward_reaches_what_listens_on_localhost_only(node: Node) -> None:
    await node.ready_node()
    command = [
        "sh",
        "-c",
        "mkdir /tmp/w; echo inside > /tmp/w/index.html; exec busybox httpd -f -p 127.0.0.1:8080 -h /tmp/w",
    ]
    # A container runs before its server listens.
    probe = {"exec": {"command": ["busybox", "wget", "-qO-", "http://127.0.0.1:8080/"]}, "periodSeconds": 1}
    app = {"name": "app", "command": command, "readinessProbe": probe}
    await node.running(simple_pod("local", app, terminationGracePeriodSeconds=1))
    process = await asyncio.create_subprocess_exec(
        "kubectl", "--kubeconfig", str(node.api.kubeconfig), "port-forward", "pod/local", "18081:8080",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 10)
        async with aiohttp.ClientSession() as session, session.get("http://127.0.0.1:18081/") as response:
            assert await response.text() == "inside\n"
    finally:
        process.terminate()
        await process.wait()


@on_node
async def test_port_forward_to_a_port_where_nothing_listens_says_so_as_containerd_does(node: Node) -> None:
    await node.ready_node()
    await node.running(simple_pod("mute", sleeper()))
    process = await asyncio.create_subprocess_exec(
        "kubectl", "--kubeconfig", str(node.api.kubeconfig), "port-forward", "pod/mute", "18082:81",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        await asyncio.wait_for(process.stdout.readline(), 10)
        _, writer = await asyncio.open_connection("127.0.0.1", 18082)
        writer.write(b"x")
        said = (await asyncio.wait_for(process.stderr.readline(), 10)).decode()
        writer.close()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    assert "failed to execute portforward in network namespace" in said
    assert "IPv4: dial tcp4 127.0.0.1:81: connect: connection refused" in said
