"""control.sock: every question gets one answer, also one that makes no sense."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.lab.bringup.components import ComponentSpec, Role
from kubewire.lab.bringup.inside import ControlServer
from kubewire.lab.errors import LabError
from kubewire.lab.handle import RunningLab
from kubewire.lab.state import LabRecord, StateDirectory


class FakeLab:
    """Takes the place of kubewire.lab.bringup.steps.Lab: notes what it was asked to do."""

    def __init__(self, state: StateDirectory) -> None:
        self.state = state
        self.components = {"kubelet@worker-1": ComponentSpec("kubelet", "worker-1", role=Role.NODE)}
        self.done: list[tuple[str, str]] = []

    def start_component(self, component_id: str) -> None:
        raise RuntimeError  # an error without a text

    def signal_component(self, component_id: str, number: signal.Signals) -> None:
        self.done.append((component_id, number.name))


@pytest.fixture
def lab(short_path: Path) -> Iterator[FakeLab]:
    lab: Any = FakeLab(StateDirectory(short_path))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(lab.state.control_socket))
    listener.listen()
    server = ControlServer(lab, listener)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield lab
    server.shutdown()
    server.server_close()
    thread.join()


def ask(lab: FakeLab, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(lab.state.control_socket))
        sock.sendall(line + b"\n")
        with sock.makefile() as lines:
            answer: dict[str, Any] = json.loads(lines.readline())
            return answer


def test_an_action_is_done_and_acknowledged(lab: FakeLab) -> None:
    request = {"op": "component", "name": "kubelet", "host": "worker-1", "action": "stop"}
    assert ask(lab, json.dumps(request).encode()) == {"result": None}
    assert lab.done == [("kubelet@worker-1", "SIGTERM")]


def test_the_network_is_what_has_that_role_on_the_host(lab: FakeLab) -> None:
    roles = {
        "kubelet@worker-1": Role.NODE,
        "calico-node@worker-1": Role.NETWORK,
        "bird@worker-1": Role.NETWORK,
        "calico-node@worker-2": Role.NETWORK,
        "brand-new@worker-1": Role.NODE,
    }
    lab.components = {
        name: ComponentSpec(component, host, role=role)
        for name, role in roles.items()
        for component, _, host in [name.partition("@")]
    }
    request = {"op": "component", "name": "network", "host": "worker-1", "action": "kill"}
    assert ask(lab, json.dumps(request).encode()) == {"result": None}
    assert lab.done == [("calico-node@worker-1", "SIGKILL"), ("bird@worker-1", "SIGKILL")]


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b'{"op": "dance"}', "unknown operation 'dance'; the only operation is 'component'"),
        (
            b'{"op": "component", "name": "kubelet"}',
            "no component 'kubelet@None'; the lab's components: kubelet@worker-1",
        ),
        (
            b'{"op": "component", "name": "kubelet", "host": "worker-1", "action": "freeze"}',
            "unknown action 'freeze'; the actions are start, kill, stop",
        ),
        (b'{"op": "component", "name": "kubelet", "host": "worker-1", "action": "start"}', "RuntimeError"),
        (b"no JSON", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff\xfe", "not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 60_000, "not JSON: nested too deeply"),
        (b"[]", "a request must be a JSON object"),
        (b"null", "a request must be a JSON object"),
        (b'{"op": ["component"]}', "unknown operation ['component']; the only operation is 'component'"),
        (b"x" * 70_000, "a request may have at most 65536 bytes"),
    ],
    ids=[
        "operation",
        "host is missing",
        "action",
        "an error without a text",
        "no JSON",
        "no text",
        "deep",
        "no object",
        "null",
        "a list for a name",
        "too long",
    ],
)
def test_what_cannot_be_done_is_answered_with_what_can(lab: FakeLab, request_line: bytes, error: str) -> None:
    assert ask(lab, request_line) == {"error": error}
    assert lab.done == []


def test_a_lab_that_has_ended_is_an_error_and_no_riddle(short_path: Path) -> None:
    ended = RunningLab(StateDirectory(short_path), LabRecord("demo", 1, 1, 0, {}))
    with pytest.raises(LabError, match="does not answer: No such file or directory"):
        ended.component("kubelet", "worker-1", "stop")


def test_the_network_is_what_has_its_role(lab: FakeLab) -> None:
    for component in (
        ComponentSpec("flannel", "worker-1", role=Role.NETWORK),
        ComponentSpec("mine", "worker-1", role=Role.USER),
    ):
        lab.components[component.id] = component
    line = b'{"op": "component", "name": "network", "host": "worker-1", "action": "stop"}'
    assert ask(lab, line) == {"result": None}
    assert lab.done == [("flannel@worker-1", "SIGTERM")]
