"""Requests that are none: an answer that names the field, or the end of that connection; the others go on."""

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.runtime import wire
from kubewire.components.runtime.api import ProcessSpec, RuntimeApiError, RuntimeClient
from tests.components.runtime.conftest import eventually


def frame(body):
    return len(body).to_bytes(4, "little") + body


class RawClient:
    """Bytes to the fork server, messages from it."""

    def __init__(self, sandbox):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(15)
        self.socket.connect(str(sandbox.socket))
        self._reader = wire.FrameReader()

    def send(self, data, fds=()):
        wire.send(self.socket, data, fds)

    def answer(self):
        """The next message; None at the end of the connection."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            for message, _ in self._reader.feed(data):
                return message

    def close(self):
        self.socket.close()


def open_files(sandbox):
    """The fork server's descriptors: it is the child of unshare(1)."""
    (child,) = Path(f"/proc/{sandbox.process.pid}/task/{sandbox.process.pid}/children").read_text().split()
    return sum(1 for _ in Path(f"/proc/{child}/fd").iterdir())


@pytest.fixture
def untouched(sandbox):
    """Another client's process runs on, its requests are answered, and no descriptor is left."""
    with RuntimeClient(sandbox.socket, timeout=15) as other:
        process = other.spawn(ProcessSpec(argv=("sleep", "100"), kill_on_disconnect=True))
        before = open_files(sandbox)
        yield
        eventually(lambda: open_files(sandbox) == before, f"{before} descriptors, now {open_files(sandbox)}")
        assert other.get(process.id).running
        assert other.run(ProcessSpec(argv=("echo", "alive")), timeout=15).stdout == b"alive\n"


@pytest.mark.packet
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(b"[]"), id="six bytes: a list"),
        pytest.param(frame(b"{}"), id="six bytes: no number"),
        pytest.param(frame(b""), id="an empty frame"),
        pytest.param(frame(b"\xff\xfe"), id="no text"),
        pytest.param(frame(b"null"), id="null"),
        pytest.param(frame(b'{"n": 1, "op": "get"'), id="JSON cut"),
        pytest.param(frame(b"[" * 200_000), id="nested lists"),
        pytest.param(frame(b'{"a":' * 200_000), id="nested objects"),
        pytest.param(b"\xff\xff\xff\xff", id="four gigabytes"),
        pytest.param((wire.MAX_FRAME + 1).to_bytes(4, "little"), id="a byte too many"),
        pytest.param(frame(b'{"n": "1", "op": "list", "labels": {}}'), id="a number that is none"),
        pytest.param(frame(b'{"n": 1, "op": "list", "fds": "stdin"}'), id="fds that are no list"),
        pytest.param(frame(b'{"n": 1, "op": "list", "fds": [1]}'), id="fds that are no names"),
        pytest.param(frame(b'{"n": 1, "op": "list", "fds": ["stdin", "stdin"]}'), id="a name twice"),
        pytest.param(frame(b'{"n": 1, "op": "list", "fds": ["stdin"]}'), id="a descriptor that did not come"),
    ],
)
def test_what_is_no_request_ends_its_connection(sandbox, untouched, data):
    client = RawClient(sandbox)
    client.send(data)
    assert client.answer() is None
    client.close()


@pytest.mark.packet
@pytest.mark.parametrize("count", [1, 40, 64, 100, 253])
@pytest.mark.parametrize("body", [b'{"n": 1, "op": "list", "labels": {}}', b"[]", b'{"n": 1, "fds": ["stdin"]}', b""])
def test_descriptors_that_no_frame_names_are_closed(sandbox, untouched, count, body):
    client = RawClient(sandbox)
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        for _ in range(3):
            client.send(frame(body), descriptors)
        client.send(b"\x10\x00", descriptors)  # half a length
    except BrokenPipeError:
        pass
    client.close()
    for one in descriptors:
        os.close(one)


REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"op": "explode"}, "unknown operation 'explode'"),
    ({}, "unknown operation None"),
    ({"op": ["get"]}, "unknown operation"),
    ({"op": "get"}, "id: a str is wanted, not None"),
    ({"op": "get", "id": {"a": 1}}, "id: a str is wanted"),
    ({"op": "get", "id": "nothing"}, "process 'nothing' does not exist"),
    ({"op": "wait", "id": 1}, "id: a str is wanted"),
    ({"op": "list", "labels": []}, "labels: a dict is wanted"),
    ({"op": "list"}, "labels: a dict is wanted"),
    ({"op": "subscribe", "labels": 1}, "labels: a dict is wanted"),
    ({"op": "signal", "id": "OWN", "signal": "9"}, "signal: a int is wanted"),
    ({"op": "signal", "id": "OWN", "signal": 10**30}, "no such signal"),
    ({"op": "signal", "id": "OWN", "signal": True}, "signal: a int is wanted"),
    ({"op": "resize", "id": "TTY", "rows": 70000, "columns": 1}, "rows, columns: 70000x1 is not from 0 to 65535"),
    ({"op": "resize", "id": "TTY", "rows": None, "columns": 1}, "rows: a int is wanted"),
    ({"op": "remove", "id": []}, "id: a str is wanted"),
    ({"op": "attach", "id": "OWN"}, "has no streams to attach to"),
    ({"op": "spawn"}, "spec: must be a mapping, is NoneType"),
    ({"op": "spawn", "spec": []}, "spec: must be a mapping"),
    ({"op": "spawn", "spec": {}}, "exactly one of main and argv"),
    ({"op": "spawn", "spec": {"argv": "sleep 1"}}, "spec.argv: must be a list of strings"),
    ({"op": "spawn", "spec": {"argv": [1]}}, "spec.argv: must be a list of strings"),
    ({"op": "spawn", "spec": {"argv": ["a\0b"]}}, "spec.argv: must be a list of strings"),
    ({"op": "spawn", "spec": {"argv": ["\ud800"]}}, "spec.argv: must be a list of strings"),
    ({"op": "spawn", "spec": {"argv": ["true"], "env": []}}, "spec.env: must be a mapping of strings or null"),
    ({"op": "spawn", "spec": {"argv": ["true"], "labels": None}}, "spec.labels: must be a mapping"),
    ({"op": "spawn", "spec": {"argv": ["true"], "user": -1}}, "spec.user: must be a number, a name or null"),
    ({"op": "spawn", "spec": {"argv": ["true"], "join": {"net": "../../1"}}}, "spec.join: must be a mapping"),
    ({"op": "spawn", "spec": {"argv": ["true"], "join": {"net": 0}}}, "spec.join: must be a mapping"),
    ({"op": "spawn", "spec": {"argv": ["true"], "join": {"time": 1}}}, "join: unknown namespaces"),
    ({"op": "spawn", "spec": {"argv": ["true"], "rootfs": 5}}, "spec.rootfs: must be a mapping"),
    ({"op": "spawn", "spec": {"argv": ["true"], "rootfs": {"mounts": 5}}}, "spec.rootfs.mounts: must be a list"),
    ({"op": "spawn", "spec": {"argv": ["true"], "rootfs": {"mounts": [5]}}}, "mounts[0]: must be a mapping"),
    ({"op": "spawn", "spec": {"argv": ["true"], "rootfs": {"mounts": [{}]}}}, "mounts[0].target: is missing"),
    ({"op": "spawn", "spec": {"argv": ["true"], "tty": {"rows": 1e9}}}, "spec.tty.rows: must be from 0 to 65535"),
    ({"op": "spawn", "spec": {"argv": ["true"], "preload": ["x"]}}, "spec.preload: must be a string"),
    ({"op": "spawn", "spec": {"argv": ["true"], "shell": True}}, "spec: unknown field 'shell'"),
    ({"op": "spawn", "spec": {"argv": ["true"], "container": "no"}}, "container 'no' does not exist"),
    ({"op": "spawn", "spec": {"argv": ["true"], "log_max_files": 0}}, "must be at least 1"),
    ({"op": "spawn", "spec": {"main": "no.such.module:main"}}, "No module named"),
]


@pytest.mark.packet
def test_each_malformed_request_is_answered(sandbox, untouched):
    with RuntimeClient(sandbox.socket, timeout=15) as owner:
        own = owner.spawn(ProcessSpec(argv=("sleep", "100"), kill_on_disconnect=True))
        tty = owner.spawn(ProcessSpec(argv=("sleep", "100"), stdin_open=True, kill_on_disconnect=True))
        client = RawClient(sandbox)
        for number, (request, said) in enumerate(REQUESTS):
            text = json.dumps({"n": number, **request}).replace('"OWN"', f'"{own.id}"').replace('"TTY"', f'"{tty.id}"')
            client.send(frame(text.encode()))
            answer = client.answer()
            assert answer["n"] == number
            assert said in answer["error"]["message"], request
        client.close()


@pytest.mark.packet
@pytest.mark.parametrize("kind", ["file", "device", "directory"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
def test_descriptors_that_cannot_be_waited_for(sandbox, untouched, tmp_path, kind, flags):
    (tmp_path / "file").touch()
    path = {"file": tmp_path / "file", "device": "/dev/null", "directory": tmp_path}[kind]
    with RuntimeClient(sandbox.socket, timeout=15) as client:
        process = client.spawn(ProcessSpec(argv=("cat",), stdin_open=True, kill_on_disconnect=True))
        given = os.open(path, flags)
        client.attach(process.id, stdin=given, stdout=given, stderr=given)
        names = ["ns:net"] if kind == "directory" else ["ns:net", "log"]
        for name in names:
            request = {"op": "spawn", "spec": {"argv": ["true"], "log_path": "/x/log"}, "fds": [name]}
            with pytest.raises(RuntimeApiError):
                client._call(request, [given])
        os.close(given)


@pytest.mark.packet
def test_a_client_that_does_not_read_is_ended(sandbox, untouched):
    client = RawClient(sandbox)
    asked = frame(json.dumps({"n": 1, "op": "x" * 60_000}).encode())

    def ask():
        try:
            while True:
                client.send(asked)
        except OSError:
            pass

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(60)
    assert not asking.is_alive()
    client.close()
