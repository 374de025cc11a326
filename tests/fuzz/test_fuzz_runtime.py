"""The fork server: frames, specs, and a live one, whose other client notices nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.runtime import wire
from kubewire.components.runtime.api import ProcessSpec, RuntimeApiError, RuntimeClient
from kubewire.components.runtime.spec import check, spec_from_json, to_json
from tests.components.runtime.conftest import Sandbox, eventually, sandbox  # noqa: F401 (a fixture)
from tests.components.runtime.test_malformed_requests import open_files
from tests.fuzz.mutation import mutated, mutated_json

SPEC: dict[str, Any] = {
    "argv": ["no-such-program"],
    "args": [],
    "name": "x",
    "env": {"A": "b"},
    "add_env": {"C": "d"},
    "cwd": "/",
    "user": 0,
    "groups": [1, 2],
    "capabilities": ["NET_RAW"],
    "unshare": ["uts"],
    "labels": {"a": "b"},
    "tty": {"rows": 24, "columns": 80},
    "log_path": "",
    "oom_score_adj": 5,
    "kill_on_disconnect": True,
}
ROOTED = {**SPEC, "unshare": ["mnt"], "rootfs": {"mounts": [{"target": "/x", "type": "tmpfs", "options": ["size=1m"]}]}}
REQUESTS: tuple[dict[str, Any], ...] = (
    {"n": 1, "op": "spawn", "spec": SPEC},
    {"n": 2, "op": "get", "id": "x"},
    {"n": 3, "op": "list", "labels": {"a": "b"}},
    {"n": 4, "op": "signal", "id": "x", "signal": 15},
    {"n": 5, "op": "resize", "id": "x", "rows": 1, "columns": 1},
    {"n": 6, "op": "attach", "id": "x", "fds": ["stdin"]},
    {"n": 7, "op": "subscribe", "labels": {}},
    {"n": 8, "op": "remove", "id": "x", "force": True},
    {"n": 9, "op": "wait", "id": "x"},
)


def feed(data: bytes, descriptors: int = 0) -> None:
    reader = wire.FrameReader()
    given_fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(descriptors)]
    try:
        with contextlib.suppress(wire.BadFrame):
            for message, fds in reader.feed(data, given_fds):
                assert isinstance(message, dict)
                wire.close_all(fds)
    finally:
        reader.close()


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    feed(data)


def test_mutated_frames(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    corpus = tuple(wire.encode(one) for one in REQUESTS)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(examples):
        data = mutated(chance, corpus)
        timely(partial(feed, data, chance.choice((0, 0, 1, 3))))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_mutated_specs(examples: int, chance: random.Random) -> None:
    for _ in range(examples):
        with contextlib.suppress(RuntimeApiError):
            spec = spec_from_json(mutated_json(chance, chance.choice((SPEC, ROOTED))))
            check(spec)
            json.dumps(to_json(spec)).encode()


@pytest.mark.packet
def test_a_live_fork_server(sandbox: Sandbox, examples: int, chance: random.Random) -> None:  # noqa: F811
    """Programs that do not exist are asked for, so that nothing runs but what the set-up does."""
    with RuntimeClient(sandbox.socket, timeout=30) as other:
        running = other.spawn(ProcessSpec(argv=("sleep", "1000"), kill_on_disconnect=True))
        before = open_files(sandbox)
        client, null = connect(sandbox), os.open("/dev/null", os.O_RDWR)
        for number in range(examples):
            request = mutated_json(chance, chance.choice(REQUESTS))
            data = wire.encode(request) if isinstance(request, dict) else json.dumps(request).encode()
            if chance.random() < 0.2:
                data = mutated(chance, (data,))
            fds = [null] * chance.choice((0, 0, 0, 1, 1, 2, 40))
            try:
                wire.send(client, data, fds)
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not client.recv(1 << 20):
                        raise ConnectionResetError
                client.setblocking(True)
            except OSError:
                client.close()
                client = connect(sandbox)
            if number % 50 == 0:
                assert other.get(running.id).running
        client.close()
        os.close(null)
        eventually(
            lambda: open_files(sandbox) <= before, f"{before} descriptors, now {open_files(sandbox)}", timeout=30
        )
        assert other.get(running.id).running
        assert "Traceback" not in sandbox.stderr.read_text(errors="replace")


def connect(sandbox: Sandbox) -> socket.socket:  # noqa: F811
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(30)
    sock.connect(str(sandbox.socket))
    return sock
