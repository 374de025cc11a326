"""Kills of every process of a lab at random moments: a lab goes on as Kubernetes would, or ends without a trace.

tests/lab/test_kill.py kills what a lab hangs on: its first process and the command that starts it. Here it is any
process, whatever it is called. The default suite has a few kills. The long run is

    KUBEWIRE_CHAOS=200 ./kubewire test tests/chaos/test_lab_kills.py -s
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from kubewire.components.kubeapi.client import ApiUnavailable, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS, DEPLOYMENTS, ENDPOINTSLICES, NODES, PODS, SERVICES
from kubewire.lab.handle import LabStarter, RunningLab, RunningProgram
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.chaos import seeds
from tests.lab.kubewire_cli import Cli, until
from tests.lab.test_kill import Namespaces, assert_gone, machine_network, mounts, wait_or_end
from tests.lab.test_lab import AGNHOST, service, web, with_api

pytestmark = [pytest.mark.lab, pytest.mark.timeout(12 * 3600)]

#: Seconds that bring-up is likely to take here; later moments hit a lab that is already up.
_BRING_UP = 4.0
_SHARE = 3
_LAB = "topology: {workers: 1}\ndns: {replicas: 1}\n"
#: Bring-up gives up after 60 s and 2 s per node; the machine may be busy.
_UP_SECONDS = 180.0
#: Faults in one lab, so that a long run does not ask more and more of one API server.
_FAULTS_PER_LAB = 50


@dataclass(frozen=True)
class Victim:
    pid: int
    name: str

    @classmethod
    def among(cls, pids: list[int], choices: random.Random) -> Victim:
        """Each kind of process is as likely as any other, however many there are of it."""
        kinds: dict[str, list[int]] = defaultdict(list)
        for pid in pids:
            if name := name_of(pid):
                kinds[name].append(pid)
        name = choices.choice(sorted(kinds))
        return cls(choices.choice(kinds[name]), name)

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended by itself since it was found."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if name_of(self.pid) == self.name:  # not a later process with its number
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def name_of(pid: int) -> str:
    """Without the host it is on; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip().partition("@")[0]
    except OSError:
        return ""


def kill_or_terminate(choices: random.Random) -> signal.Signals:
    return signal.SIGKILL if choices.random() < 0.75 else signal.SIGTERM


@contextmanager
def machine_unchanged() -> Iterator[None]:
    network, mounted = machine_network(), mounts()
    yield
    assert machine_network() == network
    assert mounts() == mounted


def test_a_process_that_is_killed_during_bring_up_leaves_a_lab_or_nothing(short_path: Path) -> None:
    seed = seeds.seed()
    lab_file = short_path / "lab.yaml"
    lab_file.write_text(_LAB)
    for number in range(seeds.kills(_SHARE)):
        with machine_unchanged():
            kill_during_bring_up(Cli(short_path / str(number)), lab_file, seeds.generator(seed, f"bring-up {number}"))


def kill_during_bring_up(cli: Cli, lab_file: Path, choices: random.Random) -> None:
    up = cli.popen("up", "-f", str(lab_file), "--name", "victim")
    until(lambda: cli.record("victim") is not None or up.poll() is not None, "a sandbox")
    record = cli.record("victim")
    assert record is not None, up.communicate()
    spaces = Namespaces(record["init_pid"])
    moment = choices.uniform(0, _BRING_UP)
    wait_or_end(up, moment)
    victim = Victim.among([*spaces.processes(), up.pid], choices)
    number = kill_or_terminate(choices)
    victim.send(number)
    output, _ = up.communicate(timeout=_UP_SECONDS)
    what = f"{number.name} to {victim} after {moment:.2f} s: {output}"
    print(f"{number.name} to {victim.name} after {moment:.2f} s: exit code {up.returncode}")
    assert "Traceback" not in output, what
    if up.returncode == 0:
        assert cli.run("down", "--name", "victim").stdout == "lab victim is down\n", what
    elif up.returncode == -signal.SIGKILL:
        until(lambda: not spaces.processes(), "nobody in the lab's namespaces")
        assert cli.run("status").returncode == 0
    else:
        assert up.returncode == (130 if victim.pid == up.pid else 1), what
    assert_gone(cli, spaces)
    assert list(cli.state.iterdir()) == [], what


def test_a_process_that_is_killed_in_a_running_lab_leaves_nothing_after_the_lab(short_path: Path) -> None:
    seed = seeds.seed()
    lab_file = short_path / "lab.yaml"
    lab_file.write_text(_LAB)
    for number in range(seeds.kills(_SHARE)):
        with machine_unchanged():
            kill_in_running_lab(Cli(short_path / str(number)), lab_file, seeds.generator(seed, f"running {number}"))


def kill_in_running_lab(cli: Cli, lab_file: Path, choices: random.Random) -> None:
    up = cli.run("up", "-f", str(lab_file), "--name", "victim", timeout=_UP_SECONDS)
    assert up.returncode == 0, up.stderr
    record = cli.record("victim")
    assert record is not None
    spaces = Namespaces(record["init_pid"])
    kubectl = ("kubectl", "--name", "victim")
    cli.run(*kubectl, "create", "deployment", "web", f"--image={AGNHOST}", "--", "/agnhost", "netexec")
    asker = cli.popen("node", "--name", "victim", "worker-1", "--", "sh", "-c", _ASK_FOR_EVER)
    time.sleep(choices.uniform(0, 2.0))  # the moment itself is what is varied
    victim = Victim.among(spaces.processes(), choices)
    number = kill_or_terminate(choices)
    victim.send(number)
    time.sleep(choices.uniform(0, 1.0))
    status = cli.run("status", "--name", "victim")
    print(f"{number.name} to {victim.name}: {(status.stderr or 'it answers').strip()}")
    assert "Traceback" not in status.stderr, (victim, status)
    assert cli.run("down", "--name", "victim").stdout == "lab victim is down\n", victim
    asker.communicate(timeout=30)
    assert_gone(cli, spaces)
    assert list(cli.state.iterdir()) == [], victim


#: A request to the API server's Service, again and again, on a node.
_ASK_FOR_EVER = "while :; do curl -sk -m 1 https://10.96.0.1/healthz >/dev/null; done"


def test_a_component_that_is_killed_and_started_again_costs_no_request_and_no_write(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = seeds.seed()
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(short_path))
    left = seeds.kills(_SHARE)
    while left > 0:
        faults = min(left, _FAULTS_PER_LAB)
        with LabStarter()(LabSpec.parse({"topology": {"workers": 2}}), "chaos") as lab:
            faults_under_traffic(lab, faults, seeds.generator(seed, f"components {left}"))
        left -= faults


def faults_under_traffic(lab: RunningLab, faults: int, choices: random.Random) -> None:
    address = with_api(lab.kubeconfig, deploy_target)
    pods = with_api(lab.kubeconfig, containers_of_target)
    assert lab.exec("pod:default/asker", answering(address), timeout=60).returncode == 0
    asker = lab.start("pod:default/asker", argv=("python3", "-c", _ASK, address))
    with writing(lab.kubeconfig) as acknowledged:
        for number in range(faults):
            fault(lab, choices)
            with_api(lab.kubeconfig, partial(converge, lab=lab, name=f"fresh-{number}"), timeout=120)
    requests = answers(asker)
    print(f"{faults} faults: {requests['asked']} requests, {len(acknowledged)} writes acknowledged")
    assert requests["failures"] == []
    assert requests["asked"] > faults
    assert with_api(lab.kubeconfig, lambda client: lost_writes(client, acknowledged)) == set()
    assert acknowledged
    assert with_api(lab.kubeconfig, containers_of_target) == pods, "containers that were not killed run on"


def fault(lab: RunningLab, choices: random.Random) -> None:
    """One component, or two, killed or stopped, and started again after a moment."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for process in lab.processes():
        if "component" in process.labels:
            hosts[process.labels["component"]].append(process.labels["host"])
    names = choices.sample(sorted(hosts), 1 if choices.random() < 0.7 else 2)
    victims = [(name, choices.choice(sorted(hosts[name]))) for name in names]
    action: Literal["kill", "stop"] = "kill" if choices.random() < 0.75 else "stop"
    print(f"{action} {', '.join(f'{name}@{host}' for name, host in victims)}")
    for name, host in victims:
        lab.component(name, host, action)
    time.sleep(choices.uniform(0, 0.5))  # for how long they are missing is what is varied
    for name, host in victims:
        lab.component(name, host, "start")


#: What asks the Service: over a new connection each time, and over one that must last. Prints JSON when it is stopped.
_ASK = """
import http.client, json, signal, sys, time
stopped, asked, failures = [], 0, []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
lasting = http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
lasting.connect()
lasting.auto_open = 0  # never anew
while not stopped:
    for how in ("new", "lasting"):
        asked += 1
        try:
            one = lasting if how == "lasting" else http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
            one.request("GET", "/hostname")
            answer = one.getresponse()
            if answer.status != 200 or not answer.read().startswith(b"target-"):
                failures.append(f"request {asked} ({how}): HTTP {answer.status}")
            if how == "new":
                one.close()
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"request {asked} ({how}): {error!r}")
    time.sleep(0.01)  # a bounded load
print(json.dumps({"asked": asked, "failures": failures[:20]}))
"""


def answers(asker: RunningProgram) -> Any:
    done = asker.stop()
    assert done.returncode == 0, done.stderr.decode()
    counted: Any = json.loads(done.stdout)
    return counted


async def deploy_target(client: Client) -> str:
    """Two servers, their Service, and a pod to ask from. Returns the Service's address."""
    await client.create(DEPLOYMENTS, web("target", 2))
    made = await client.create(SERVICES, service("target"))
    container = {"name": "asker", "image": "nicolaka/netshoot", "command": ["sleep", "infinity"]}
    pod: Any = {"metadata": {"name": "asker", "namespace": "default"}, "spec": {"containers": [container]}}
    await client.create(PODS, pod)
    await endpoints(client, "target", 2)
    while (await client.get(PODS, "asker", "default"))["status"].get("phase") != "Running":  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    address: str = made["spec"]["clusterIP"]
    return address


async def endpoints(client: Client, name: str, count: int) -> None:
    """Wait until that many of a Service's endpoints are ready."""
    while True:
        slices = await client.list(ENDPOINTSLICES, "default", label_selector=f"kubernetes.io/service-name={name}")
        ready = [e for s in slices.items for e in s.get("endpoints") or () if e["conditions"].get("ready")]
        if len(ready) == count:
            return
        await asyncio.sleep(0.05)


async def containers_of_target(client: Client) -> list[tuple[str, str, int]]:
    """Pod, container id and restarts."""
    pods = (await client.list(PODS, "default", label_selector="app=target")).items
    statuses = [(pod["metadata"]["name"], status) for pod in pods for status in pod["status"]["containerStatuses"]]
    return sorted((name, status["containerID"], status["restartCount"]) for name, status in statuses)


async def converge(client: Client, lab: RunningLab, name: str) -> None:
    """All that makes a new Service answer on each node has to work for this, and all nodes to be ready."""
    await insist(lambda: client.create(DEPLOYMENTS, web(name)))
    made = await insist(lambda: client.create(SERVICES, service(name)))
    await insist(lambda: endpoints(client, name, 1))
    command = answering(made["spec"]["clusterIP"])
    for host in ("worker-1", "worker-2"):
        done = await asyncio.to_thread(lab.exec, host, command, timeout=60)
        assert done.text.startswith(f"{name}-"), done
    for node in (await client.list(NODES)).items:
        conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
        assert conditions["Ready"] == "True", node["metadata"]["name"]
    await insist(lambda: client.delete(SERVICES, name, "default"))
    await insist(lambda: client.delete(DEPLOYMENTS, name, "default"))
    await endpoints(client, name, 0)


def answering(address: str) -> list[str]:
    """Waits until the Service answers: its rules reach each node in their own time."""
    return ["sh", "-c", f"until curl -sf -m 1 http://{address}/hostname; do sleep 0.05; done"]


async def insist(request: Any) -> Any:
    """Until the API server, which has just been started, answers. with_api has the deadline."""
    while True:
        try:
            return await request()
        except ApiUnavailable:
            await asyncio.sleep(0.02)


@contextmanager
def writing(kubeconfig: Path) -> Iterator[list[str]]:
    """A client that creates ConfigMaps all the time; the list is of those that were acknowledged."""
    acknowledged: list[str] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    async def write(client: Client) -> None:
        number = 0
        while not ended.is_set():
            metadata = {"name": f"kept-{number}", "namespace": "default", "labels": {"kept": "yes"}}
            kept: Any = {"metadata": metadata}
            try:
                await client.create(CONFIGMAPS, kept)
                acknowledged.append(f"kept-{number}")
            except ApiUnavailable:
                pass  # it may have been written, and was not acknowledged
            number += 1
            await asyncio.sleep(0.02)  # a bounded load

    def run() -> None:
        try:
            with_api(kubeconfig, write, timeout=12 * 3600)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]


async def lost_writes(client: Client, acknowledged: list[str]) -> set[str]:
    listed = await client.list(CONFIGMAPS, "default", label_selector="kept=yes")
    return set(acknowledged) - {item["metadata"]["name"] for item in listed.items}
