"""Starting, watching, signalling and ending processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from kubewire.components.runtime.api import (
    AsyncRuntimeClient,
    Disconnected,
    InvalidSpec,
    ProcessSpec,
    RuntimeApiError,
    RuntimeClient,
    StartError,
    UnknownProcess,
)
from tests.components.runtime.conftest import Sandbox, eventually, start, stop

pytestmark = pytest.mark.packet
PROGRAMS = "tests.components.runtime.programs"


def shown(client: RuntimeClient, **fields: object) -> dict[str, object]:
    spec = ProcessSpec(main=f"{PROGRAMS}:show", **fields)  # type: ignore[arg-type]
    done = client.run(spec, timeout=10)
    assert not done.stderr, done.stderr.decode()
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_a_forked_main_gets_args_environment_directory_and_a_clean_slate(client: RuntimeClient) -> None:
    told = shown(client, args=("3", "b"), env={"A": "1"}, add_env={"B": "2"}, cwd="/usr", name="my-program")
    assert told["argv"] == ["3", "b"] and told["sys.argv"] == ["my-program", "3", "b"]
    assert told["env"] == {"A": "1", "B": "2", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    assert told["cwd"] == "/usr"
    assert told["comm"] == "my-program" and str(told["cmdline"]).rstrip("\0") == "my-program\0003\0b"
    assert told["fds"] == [0, 1, 2]
    assert told["sigterm"] == "0" or "SIG_DFL" in str(told["sigterm"])
    assert told["masked"] == 0


@pytest.mark.parametrize(
    ("spec", "code", "stderr"),
    [
        (ProcessSpec(main=f"{PROGRAMS}:show", args=("41",)), 41, ""),
        (ProcessSpec(main=f"{PROGRAMS}:fail"), 1, "RuntimeError: as the test asked"),
        (ProcessSpec(main=f"{PROGRAMS}:leave"), 1, "words for stderr"),
        (ProcessSpec(main=f"{PROGRAMS}:write_to_hung_up_peer"), 0, ""),
        (ProcessSpec(argv=("sh", "-c", "exit 12")), 12, ""),
        (ProcessSpec(argv=("sh", "-c", "sh -c 'kill -PIPE $$'")), 141, ""),
    ],
    ids=[
        "result of main",
        "exception",
        "sys.exit with words",
        "SIGPIPE is an exception in Python",
        "executed program",
        "SIGPIPE ends an executed program",
    ],
)
def test_exit_codes(client: RuntimeClient, spec: ProcessSpec, code: int, stderr: str) -> None:
    done = client.run(spec, timeout=10)
    assert (done.exit.code, done.exit.signal) == (code, 0)
    assert stderr in done.stderr.decode()


def test_run_passes_a_megabyte_through_stdin_and_stdout(client: RuntimeClient) -> None:
    data = os.urandom(1 << 20)
    assert client.run(ProcessSpec(argv=("cat",)), stdin=data, timeout=20).stdout == data


def test_an_environment_larger_than_a_socket_buffer_arrives(client: RuntimeClient) -> None:
    env = {f"SERVICE_{number}_PORT": "tcp://10.96.0.1:443" * 5 for number in range(5000)}
    told = shown(client, env=env)
    assert len(told["env"]) == len(env) + 1  # type: ignore[arg-type]  # PATH


def test_run_past_its_deadline_kills_the_process(client: RuntimeClient, sandbox: Sandbox) -> None:
    before = sandbox.pids()
    with pytest.raises(TimeoutError):
        client.run(ProcessSpec(argv=("sh", "-c", "sleep 1000; true")), timeout=0.3)
    # run() returns when the shell is gone. Its child was killed with it, and PID 1 reaps that on its own.
    eventually(lambda: sandbox.pids() == before, "the shell's child is reaped")


@pytest.mark.parametrize(
    ("spec", "message", "stage"),
    [
        (ProcessSpec(argv=("no-such-program",)), 'exec: "no-such-program": executable file not found in $PATH', "exec"),
        (ProcessSpec(argv=("/no/such",)), 'exec: "/no/such": stat /no/such: no such file or directory', "exec"),
        (ProcessSpec(argv=("/etc/passwd",)), 'exec: "/etc/passwd": permission denied', "exec"),
        (ProcessSpec(main="no.such:main"), "main no.such:main: No module named 'no'", "import"),
        (ProcessSpec(argv=("true",), join={"net": 999999}), "join net namespace of pid 999999", "join net"),
        (ProcessSpec(argv=("true",), user="nobody-here"), "unable to find user nobody-here", "user"),
        (ProcessSpec(argv=("true",), cwd="/etc/passwd"), 'chdir to cwd ("/etc/passwd")', "cwd"),
        (ProcessSpec(argv=("true",), sysctls={"net.no.such": "1"}), "sysctl net.no.such=1", "sysctl net.no.such"),
        (ProcessSpec(argv=("true",), capabilities=("FLY",)), "unknown capability 'FLY'", "capabilities"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_fails_before_the_program_runs_is_named(
    client: RuntimeClient, spec: ProcessSpec, message: str, stage: str
) -> None:
    before = client.list()
    with pytest.raises(StartError) as raised:
        client.spawn(spec)
    assert message in str(raised.value)
    assert raised.value.stage == stage
    assert client.list() == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ProcessSpec(), "exactly one of main and argv"),
        (ProcessSpec(main="a"), "package.module:function"),
        (ProcessSpec(argv=("a",), unshare=("network",)), "unknown namespaces"),
        (ProcessSpec(argv=("a",), container="x", unshare=("pid",)), "cannot be set with it"),
    ],
)
def test_contradictory_specs_are_refused(client: RuntimeClient, spec: ProcessSpec, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        client.spawn(spec)


def test_signals_and_waiting(client: RuntimeClient) -> None:
    reader, writer = os.pipe()
    process = client.spawn(ProcessSpec(main=f"{PROGRAMS}:sleep_until_term"), stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as output:
        assert output.readline() == b"ready\n"
    with pytest.raises(TimeoutError):
        client.wait(process.id, timeout=0.05)
    client.signal(process.id, signal.SIGTERM)
    assert client.wait(process.id, timeout=10).code == 7
    client.signal(process.id, signal.SIGTERM)

    killed = client.spawn(ProcessSpec(argv=("sleep", "1000")))
    client.signal(killed.id, signal.SIGKILL)
    status = client.wait(killed.id, timeout=10)
    assert (status.code, status.signal, status.shell_code) == (0, 9, 137)
    assert status.finished_at >= killed.started_at


def test_exit_statuses_are_kept_until_removed_and_found_by_label(sandbox: Sandbox, client: RuntimeClient) -> None:
    labels = {"pod": "a", "container": "b"}
    with RuntimeClient(sandbox.socket) as first:
        process = first.spawn(ProcessSpec(argv=("sh", "-c", "exit 5"), labels=labels))
    # The connection that started it has gone: kubelet was restarted.
    assert client.wait(process.id, timeout=10).code == 5
    assert [p.id for p in client.list({"pod": "a"})] == [process.id]
    assert client.list({"pod": "b"}) == []
    found = client.get(process.id)
    assert found.exit is not None and found.exit.code == 5 and not found.running
    client.remove(process.id)
    client.remove(process.id)
    with pytest.raises(UnknownProcess):
        client.get(process.id)


def test_a_running_process_is_removed_only_by_force(client: RuntimeClient, sandbox: Sandbox) -> None:
    before = sandbox.pids()
    process = client.spawn(ProcessSpec(argv=("sh", "-c", "sleep 1000 & sleep 1000")))
    with pytest.raises(RuntimeApiError, match="is running"):
        client.remove(process.id)
    client.remove(process.id, force=True)
    assert process.id not in {p.id for p in client.list()}
    eventually(lambda: sandbox.pids() == before, "its whole process group is gone")


def test_kill_on_disconnect(sandbox: Sandbox, client: RuntimeClient) -> None:
    with RuntimeClient(sandbox.socket) as other:
        bound = other.spawn(ProcessSpec(argv=("sleep", "1000"), kill_on_disconnect=True))
        free = other.spawn(ProcessSpec(argv=("sleep", "1000")))
    eventually(lambda: bound.id not in {p.id for p in client.list()}, "the bound process is gone")
    assert client.get(free.id).running


def test_extra_descriptors_arrive_under_their_numbers(client: RuntimeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = client.spawn(ProcessSpec(main=f"{PROGRAMS}:accept_one", args=("7",)), fds={7: listener.fileno()})
        with socket.create_connection(listener.getsockname(), timeout=10) as connection:
            assert connection.recv(100) == b"hello from the process"
    assert client.wait(process.id, timeout=10).code == 0
    with pytest.raises(InvalidSpec, match="from 3 to 31"):
        client.spawn(ProcessSpec(argv=("true",)), fds={99: 0})


def test_user_and_groups(client: RuntimeClient) -> None:
    if os.geteuid() != 0:
        pytest.skip("a user namespace maps only one id")
    assert shown(client, user=1234, group=2345, groups=(5, 6), env={})["ids"] == [1234, 2345, [5, 6]]
    assert shown(client, user="daemon", env={})["ids"] == [1, 1, []]


def test_capabilities_are_dropped_for_what_is_executed_too(client: RuntimeClient) -> None:
    spec = ProcessSpec(argv=("grep", "-E", "CapEff|CapBnd", "/proc/self/status"), capabilities=("NET_RAW", "CAP_CHOWN"))
    masks = {int(line.split()[1], 16) for line in client.run(spec, timeout=10).stdout.decode().splitlines()}
    assert masks == {1 << 13 | 1}


def test_subscribers_are_told_of_exits_at_once(sandbox: Sandbox, client: RuntimeClient) -> None:
    events = client.subscribe({"watch": "yes"})
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(next(events).id))
    thread.start()
    with RuntimeClient(sandbox.socket) as other:
        eventually(lambda: _ends(other, got, {"watch": "no"}) or got, "told", 10)
        assert {p.id for p in other.list({"watch": "yes"})} >= set(got)
    thread.join(10)


def _ends(client: RuntimeClient, got: list[str], labels: dict[str, str]) -> bool:
    # The first may run before the subscription is made; the others of another label are never told.
    for wanted in (labels, {"watch": "yes"}):
        client.wait(client.spawn(ProcessSpec(argv=("true",), labels=wanted)).id, timeout=10)
    return bool(got)


def test_asyncio_client_runs_many_things_on_one_connection(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        client = await AsyncRuntimeClient.connect(sandbox.socket)
        exits = await client.subscribe({"batch": "1"})
        done = await asyncio.gather(
            *(
                client.run(ProcessSpec(argv=("cat",), labels={"batch": "1"}), stdin=b"x" * n, timeout=20)
                for n in range(10)
            )
        )
        assert [len(d.stdout) for d in done] == list(range(10))
        sleeper = await client.spawn(ProcessSpec(argv=("sleep", "1000"), labels={"batch": "1"}))
        waiting = asyncio.create_task(client.wait(sleeper.id))
        assert [p.id for p in await client.list({"batch": "1"})] == [sleeper.id]
        await client.signal(sleeper.id, signal.SIGTERM)
        assert (await asyncio.wait_for(waiting, 10)).signal == signal.SIGTERM
        async with asyncio.timeout(10):
            async for process in exits:
                if process.id == sleeper.id:
                    break
        with pytest.raises(StartError):
            await client.spawn(ProcessSpec(argv=("nope",)))
        with pytest.raises(TimeoutError):
            await client.run(ProcessSpec(argv=("sleep", "1000"), labels={"batch": "2"}), timeout=0.1)
        assert await client.list({"batch": "2"}) == []
        await client.remove(sleeper.id)
        await client.close()
        with pytest.raises(Disconnected):
            await client.list()

    asyncio.run(scenario())


def test_components_parent_has_the_libraries_in_memory(client: RuntimeClient) -> None:
    spec = ProcessSpec(main="tests.components.runtime.programs:print_modules", preload="components")
    assert {"aiohttp", "orjson", "ssl", "yaml"} <= set(client.run(spec, timeout=30).stdout.decode().split())
    light = ProcessSpec(main="tests.components.runtime.programs:print_modules")
    assert "aiohttp" not in client.run(light, timeout=30).stdout.decode().split()


def test_sigterm_of_the_server_kills_everything_and_removes_the_socket() -> None:
    unshare = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    sandbox = start(*unshare)
    try:
        sandbox.client.spawn(ProcessSpec(argv=("sleep", "1000")))
        sandbox.client.spawn(ProcessSpec(argv=("sh", "-c", "trap '' TERM; sleep 1000"), unshare=("pid",)))
        os.kill(_child_of(sandbox.process.pid), signal.SIGTERM)
        assert sandbox.process.wait(10) == 0
        assert not sandbox.socket.exists()
    finally:
        stop(sandbox.process, sandbox.directory)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_death_of_a_forking_parent_ends_the_server_with_a_message() -> None:
    unshare = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    sandbox = start(*unshare)
    try:
        parents = Path(f"/proc/{_child_of(sandbox.process.pid)}/task/{_child_of(sandbox.process.pid)}/children")
        os.kill(int(parents.read_text().split()[0]), signal.SIGKILL)
        assert sandbox.process.wait(10) == 1
        assert "the light forking parent died" in sandbox.stderr.read_text()
    finally:
        stop(sandbox.process, sandbox.directory)
