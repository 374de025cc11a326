"""Roots, namespaces, exec into containers, terminals and logs."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.components.runtime.api import (
    Mount,
    Process,
    ProcessSpec,
    Rootfs,
    RuntimeApiError,
    RuntimeClient,
    StartError,
    Tty,
)
from tests.components.runtime.conftest import Sandbox, eventually, start, stop

pytestmark = pytest.mark.packet
POD = ("pid", "mnt", "uts", "ipc", "net")


@pytest.fixture(scope="module", params=["root", "user namespace"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    started = start(*(("--user", "--map-root-user") if request.param == "user namespace" else ()))
    yield started
    stop(started.process, started.directory)


def pause(client: RuntimeClient, *mounts: Mount, **fields: object) -> Process:
    rootfs = Rootfs(mounts, hostname="pod-a", **fields)  # type: ignore[arg-type]
    return client.spawn(ProcessSpec(main="kubewire.components.runtime.pause:main", unshare=POD, rootfs=rootfs, env={}))


def in_container(client: RuntimeClient, container: Process, *argv: str) -> str:
    done = client.run(ProcessSpec(argv=argv, container=container.id), timeout=10)
    assert done.exit.code == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_pause_is_pid_1_of_its_own_namespaces_and_ends_on_sigterm(client: RuntimeClient) -> None:
    container = pause(client)
    assert in_container(client, container, "hostname") == "pod-a"
    assert in_container(client, container, "cat", "/proc/1/comm") in ("pause", "catatonit")
    assert in_container(client, container, "ls", "/sys/class/net") == "lo"
    assert "UP" in in_container(client, container, "ip", "-br", "link", "show", "lo")
    client.signal(container.id, signal.SIGTERM)
    assert client.wait(container.id, timeout=10).code == 0


def test_python_pause_reaps_orphans(client: RuntimeClient) -> None:
    spec = ProcessSpec(main="kubewire.components.runtime.pause:sleep", unshare=("pid", "mnt"), rootfs=Rootfs(), env={})
    container = client.spawn(spec)
    in_container(client, container, "sh", "-c", "(sleep 0.05 &)")
    eventually(lambda: "sleep" not in in_container(client, container, "ps", "ax"), "the orphan is reaped")
    client.signal(container.id, signal.SIGTERM)
    assert client.wait(container.id, timeout=10).code == 0


def test_what_a_container_writes_stays_in_it(client: RuntimeClient, sandbox: Sandbox) -> None:
    first, second = pause(client), pause(client)
    marker = f"/etc/kubewire-test-{os.getpid()}"
    in_container(client, first, "sh", "-c", f"echo first > {marker}; rm /etc/passwd; echo x > /tmp/x; echo y > /run/y")
    assert in_container(client, first, "cat", marker) == "first"
    assert in_container(client, second, "sh", "-c", f"ls {marker} /tmp /run 2>/dev/null; wc -l < /etc/passwd") != ""
    left = in_container(client, second, "ls", "/tmp").split()
    # A checkout that lies in /tmp stays visible.
    assert [name for name in left if not Path(__file__).is_relative_to(f"/tmp/{name}")] == []
    assert not Path(marker).exists() and Path("/etc/passwd").exists()


def test_devices_proc_and_sys(client: RuntimeClient) -> None:
    container = pause(client)
    script = (
        "echo lost > /dev/null && head -c 4 /dev/urandom | wc -c && test -e /dev/ptmx && test -d /dev/shm && echo ok"
    )
    assert in_container(client, container, "sh", "-c", script).split() == ["4", "ok"]
    refused = client.run(
        ProcessSpec(argv=("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"), container=container.id), timeout=10
    )
    assert b"Read-only" in refused.stderr
    privileged = pause(client, privileged=True)
    in_container(client, privileged, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def test_sysctls_are_set_in_the_new_network_namespace(client: RuntimeClient, sandbox: Sandbox) -> None:
    key = "net.ipv4.ip_unprivileged_port_start"
    spec = ProcessSpec(argv=("sysctl", "-n", key), unshare=POD, rootfs=Rootfs(), sysctls={key: "77"})
    assert client.run(spec, timeout=10).stdout == b"77\n"
    assert sandbox.inside("sysctl", "-n", key) != "77\n"


def test_binds(client: RuntimeClient, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("10.244.0.2 pod-a\n")
    (tmp_path / "volume").mkdir()
    container = pause(
        client,
        Mount("/etc/hosts", str(tmp_path / "hosts")),
        Mount("/etc/resolv.conf", str(tmp_path / "hosts"), read_only=True),
        Mount("/data/deep/volume", str(tmp_path / "volume")),
        Mount("/config", str(tmp_path / "volume"), read_only=True),
        Mount("/cache", type="tmpfs", options=("size=64k",)),
    )
    shown = in_container(client, container, "cat", "/etc/hosts", "/etc/resolv.conf")
    assert shown.splitlines() == ["10.244.0.2 pod-a"] * 2
    in_container(client, container, "sh", "-c", "echo hello > /data/deep/volume/file")
    assert (tmp_path / "volume/file").read_text() == "hello\n"
    assert in_container(client, container, "cat", "/config/file") == "hello"
    for command in ("echo x > /config/file", "echo x > /etc/resolv.conf", "head -c 200000 /dev/zero > /cache/big"):
        done = client.run(ProcessSpec(argv=("sh", "-c", command), container=container.id), timeout=10)
        assert done.exit.code != 0, command


def test_a_bind_target_that_is_a_link_stays_inside(client: RuntimeClient, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.96.0.10\n")
    link = Mount("/var/run/stub/resolv.conf", str(tmp_path / "resolv.conf"))
    container = pause(client, link)
    # /var/run is a link to /run on Debian.
    assert in_container(client, container, "cat", "/run/stub/resolv.conf") == "nameserver 10.96.0.10"
    assert not Path("/run/stub").exists()


def test_a_missing_bind_source_is_named(client: RuntimeClient) -> None:
    with pytest.raises(StartError, match=r"mount /data: .*No such file or directory.*/no/such") as raised:
        pause(client, Mount("/data", "/no/such"))
    assert raised.value.stage == "mount /data"


def test_read_only_root(client: RuntimeClient) -> None:
    container = pause(client, read_only=True)
    done = client.run(ProcessSpec(argv=("touch", "/etc/x"), container=container.id), timeout=10)
    assert b"Read-only file system" in done.stderr
    in_container(client, container, "touch", "/tmp/x")


def test_app_container_joins_the_pods_network_and_names(client: RuntimeClient, tmp_path: Path) -> None:
    holder = pause(client)
    join = {"net": holder.pid, "uts": holder.pid, "ipc": holder.pid}
    script = 'hostname; readlink /proc/self/ns/net; echo $$; echo "$GREETING"; pwd'
    spec = ProcessSpec(
        argv=("sh", "-c", script),
        join=join,
        unshare=("pid", "mnt"),
        rootfs=Rootfs(),
        env={"GREETING": "hi"},
        cwd="/work/dir",
    )
    name, net, pid, greeting, cwd = client.run(spec, timeout=10).stdout.decode().splitlines()
    assert (name, pid, greeting, cwd) == ("pod-a", "1", "hi", "/work/dir")
    assert net == in_container(client, holder, "readlink", "/proc/self/ns/net")


def test_a_namespace_can_be_joined_by_path(client: RuntimeClient, sandbox: Sandbox) -> None:
    holder = pause(client)
    # The path is the client's: here, the process as the machine sees it.
    server = int(Path(f"/proc/{sandbox.process.pid}/task/{sandbox.process.pid}/children").read_text().split()[0])
    path = f"/proc/{server}/ns/uts"
    spec = ProcessSpec(argv=("readlink", "/proc/self/ns/uts"), join={"uts": path})
    assert client.run(spec, timeout=10).stdout.decode().strip() == str(Path(path).readlink())
    assert in_container(client, holder, "readlink", "/proc/self/ns/uts") != str(Path(path).readlink())


def test_shared_pid_namespace(client: RuntimeClient) -> None:
    holder = pause(client)
    spec = ProcessSpec(argv=("ps", "ax"), join={"pid": holder.pid}, unshare=("mnt",), rootfs=Rootfs())
    assert "pause" in client.run(spec, timeout=10).stdout.decode()


def test_exec_inherits_environment_and_directory_and_dies_with_the_container(client: RuntimeClient) -> None:
    spec = ProcessSpec(argv=("sleep", "1000"), unshare=POD, rootfs=Rootfs(), env={"A": "of the container"}, cwd="/usr")
    container = client.spawn(spec)
    assert in_container(client, container, "sh", "-c", "echo $A; pwd").splitlines() == ["of the container", "/usr"]
    inside = client.spawn(ProcessSpec(argv=("sleep", "1000"), container=container.id))
    client.signal(container.id, signal.SIGKILL)
    assert client.wait(inside.id, timeout=10).signal == signal.SIGKILL
    with pytest.raises(StartError, match="cannot exec in a stopped container"):
        client.spawn(ProcessSpec(argv=("true",), container=container.id))


def test_containers_leave_no_process_and_no_mount(client: RuntimeClient, sandbox: Sandbox) -> None:
    def mounts() -> str:
        return sandbox.inside("cat", "/proc/self/mountinfo")

    pids, mounted = sandbox.pids(), mounts()
    containers = [pause(client) for _ in range(3)]
    client.run(ProcessSpec(argv=("sh", "-c", "sleep 1000 >/dev/null 2>&1 &"), container=containers[0].id), timeout=10)
    for container in containers:
        client.remove(container.id, force=True)
    eventually(lambda: sandbox.pids() == pids, "no process is left")
    assert mounts() == mounted
    assert list((sandbox.directory / "scratch").iterdir()) == []


def test_log_in_cri_format(client: RuntimeClient, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    script = "echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; printf end"
    before = time.time()
    container = client.spawn(ProcessSpec(argv=("sh", "-c", script), log_path=str(log)))
    assert container.log_path == str(log)
    client.wait(container.id, timeout=10)
    # All that was written is in the file by the time the exit is told (but for the unfinished line).
    client.remove(container.id)
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line[0]) for line in lines)
    assert time.strftime("%Y-%m-%dT%H", time.gmtime(before)) == lines[0][0][:13]
    out = [(line[2], line[3]) for line in lines if line[1] == "stdout"]
    assert ("F", "err") in [(line[2], line[3]) for line in lines if line[1] == "stderr"]
    assert out[0] == ("F", "out")
    assert [(tag, len(text)) for tag, text in out[1:]] == [("P", 16384), ("P", 20000 - 16384 + 3)]
    assert out[-1][1].endswith("xend")


def test_logs_are_rotated(client: RuntimeClient, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    spec = ProcessSpec(argv=("seq", "1", "100000"), log_path=str(log), log_max_bytes=1_000_000, log_max_files=3)
    client.wait(client.spawn(spec).id, timeout=10)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3 and log in files
    assert all(file.stat().st_size <= 1_000_000 for file in files)
    assert log.read_text().splitlines()[-1].endswith(" F 100000")


def test_attach_gets_live_output_and_gives_input(client: RuntimeClient, tmp_path: Path) -> None:
    spec = ProcessSpec(argv=("cat",), log_path=str(tmp_path / "0.log"), stdin_open=True, stdin_once=True)
    process = client.spawn(spec)
    ours_in, theirs_in = socket.socketpair()
    ours_out, theirs_out = socket.socketpair()
    client.attach(process.id, stdin=theirs_in.fileno(), stdout=theirs_out.fileno())
    theirs_in.close()
    theirs_out.close()
    ours_out.settimeout(10)
    ours_in.sendall(b"typed\n")
    assert ours_out.recv(100) == b"typed\n"
    ours_in.close()
    assert client.wait(process.id, timeout=10).code == 0
    assert ours_out.recv(100) == b""
    assert "stdout F typed" in (tmp_path / "0.log").read_text()
    ours_out.close()


@pytest.mark.parametrize("argv", [("echo", "said"), ("true",)], ids=["with output", "without output"])
@pytest.mark.parametrize("kept", [False, True], ids=["heard by nobody", "kept for the first client"])
def test_an_ended_process_is_attached_to_only_if_its_output_is_kept(
    client: RuntimeClient, tmp_path: Path, kept: bool, argv: tuple[str, ...]
) -> None:
    """containerd refuses, and `kubectl run --attach` then reads the log."""
    spec = ProcessSpec(argv=argv, log_path=str(tmp_path / "0.log"), stdin_open=kept, stdin_once=kept)
    process = client.spawn(spec)
    client.wait(process.id, timeout=10)
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, theirs:
        if not kept:
            with pytest.raises(RuntimeApiError, match="has ended"):
                client.attach(process.id, stdout=theirs.fileno())
            return
        client.attach(process.id, stdout=theirs.fileno())
        theirs.close()
        assert ours.recv(100) == (b"said\n" if argv[0] == "echo" else b"")


def test_a_client_that_does_not_read_stops_the_output_not_the_server(client: RuntimeClient, tmp_path: Path) -> None:
    spec = ProcessSpec(argv=("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' '\\n'"), tty=None, stdin_open=True)
    process = client.spawn(spec)
    ours, theirs = socket.socketpair()
    client.attach(process.id, stdout=theirs.fileno())
    theirs.close()
    assert client.get(process.id).running
    ours.settimeout(10)
    received = 0
    while chunk := ours.recv(1 << 16):
        received += len(chunk)
    assert received <= 3_000_000 and client.wait(process.id, timeout=10).code == 0
    ours.close()


@pytest.mark.parametrize("where", ["new container", "exec", "no container"])
def test_terminal(client: RuntimeClient, where: str) -> None:
    script = "tty; stty size; test -c /dev/console && echo console; read line; echo got $line; stty size"
    fields: dict[str, object] = {}
    if where == "new container":
        fields = {"unshare": POD, "rootfs": Rootfs()}
    elif where == "exec":
        fields = {"container": pause(client).id}
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    spec = ProcessSpec(argv=("sh", "-c", script), tty=Tty(30, 100), **fields)  # type: ignore[arg-type]
    process = client.spawn(spec, stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    said = b""
    while b"console" not in said and said.count(b"\n") < 3 - (where != "new container"):
        said += ours.recv(1000)
    assert said.startswith(b"/dev/pts/") and b"30 100" in said
    client.resize(process.id, 40, 120)
    ours.sendall(b"words\n")
    while b"40 120" not in said:
        chunk = ours.recv(1000)
        assert chunk, said
        said += chunk
    assert b"got words" in said
    assert client.wait(process.id, timeout=10).code == 0
    ours.close()


def test_the_shell_of_busybox_passes_variables_on_whose_names_are_no_identifiers(client: RuntimeClient) -> None:
    """Debian's own /bin/sh, dash, drops them."""
    container = pause(client, Mount("/bin/sh", "sh", "tools"), Mount("/bin/sysctl", "sysctl", "tools"))
    script = "env; /bin/sysctl -n net.ipv4.ip_forward"
    asked = ProcessSpec(argv=("/bin/sh", "-c", script), container=container.id, add_env={"a-b.c": "kept"})
    done = client.run(asked, timeout=10)
    said = done.stdout.decode().splitlines()
    assert "a-b.c=kept" in said
    assert said[-1] in ("0", "1")
    shell = in_container(client, container, "/bin/sh", "-c", 'echo "$0" "$@"; no-such 2>&1 || true', "zero", "a b")
    assert shell == "zero a b\nzero: line 0: no-such: not found", "without such names it is BusyBox's"


def test_a_read_only_root_has_the_tools_of_busybox(client: RuntimeClient) -> None:
    tools = {"/opt/busybox/bin": "busybox", "/bin/sh": "sh", "/bin/sysctl": "sysctl"}
    container = pause(client, *(Mount(path, name, "tools") for path, name in tools.items()), read_only=True)
    script = "touch /x 2>&1 || true; /opt/busybox/bin/wget --help 2>&1 | head -1; cat /etc/hostname | wc -l"
    said = in_container(client, container, "/bin/sh", "-c", script).splitlines()
    assert said[0].endswith("Read-only file system")
    assert "BusyBox" in said[1]


def test_tools_of_images(client: RuntimeClient) -> None:
    container = pause(client, Mount("/opt/busybox/bin", "busybox", "tools"), Mount("/agnhost", "agnhost", "tools"))
    assert "BusyBox" in in_container(client, container, "sh", "-c", "/opt/busybox/bin/nslookup --help 2>&1 | head -1")
    assert in_container(client, container, "/agnhost", "entrypoint-tester", "a b") == "[/agnhost entrypoint-tester a b]"


@pytest.mark.parametrize("allowed", [True, False], ids=["escalation allowed", "no new privileges"])
def test_the_program_of_nonewprivs_gains_root_if_it_may(client: RuntimeClient, allowed: bool) -> None:
    place = "/usr/local/bin/nonewprivs"
    container = pause(client, Mount(place, "nonewprivs", "tools"), Mount(f"{place}-id", "nonewprivs-id", "tools"))
    try:
        spec = ProcessSpec(argv=(place,), container=container.id, user=1000, no_new_privileges=not allowed)
        done = client.run(spec, timeout=10)
        assert "nonewprivs-id" not in in_container(client, container, "cat", "/proc/mounts"), "a mount is nosuid"
    except StartError as error:
        assert error.errno == errno.EINVAL, "a user namespace of one user has no other"
    else:
        assert done.stdout == (b"Effective uid: 0\n" if allowed else b"Effective uid: 1000\n")


def test_an_exec_has_no_new_privileges_either(client: RuntimeClient) -> None:
    rootfs = Rootfs(hostname="pod-a")
    program = "kubewire.components.runtime.pause:main"
    spec = ProcessSpec(main=program, unshare=POD, rootfs=rootfs, env={}, no_new_privileges=True)
    container = client.spawn(spec)
    for pid in ("1", "self"):
        assert "NoNewPrivs:\t1" in in_container(client, container, "grep", "NoNewPrivs", f"/proc/{pid}/status")


def test_the_test_images_have_a_certificate_for_localhost(client: RuntimeClient) -> None:
    files = [Mount(f"/localhost.{kind}", f"localhost.{kind}", "tools") for kind in ("crt", "key")]
    container = pause(client, *files)
    assert "BEGIN CERTIFICATE" in in_container(client, container, "cat", "/localhost.crt")
    assert "PRIVATE KEY" in in_container(client, container, "cat", "/localhost.key")


def test_a_light_container_costs_little_memory(client: RuntimeClient, sandbox: Sandbox) -> None:
    """Private memory of one of ten; the bound is what the README promises."""
    args = ("netexec", "--http-port", "8080")
    spec = ProcessSpec(main="kubewire.components.agnhost.main:main", args=args, unshare=POD, rootfs=Rootfs(), env={})
    containers = [client.spawn(spec) for _ in range(10)]
    rollup = sandbox.inside("cat", f"/proc/{containers[5].pid}/smaps_rollup")
    private = sum(int(value) for value in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.M))
    assert private < 5 * 1024
