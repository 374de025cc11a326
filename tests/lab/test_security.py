"""Nothing in a lab reaches the machine: attempts from pods and nodes, as root and as an ordinary user.

docs/security.md has the table of who can do what; each of its rows names a test of this file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.lab.kubewire_cli import ROOT, Cli

pytestmark = pytest.mark.lab

ATTEMPTS = Path(__file__).with_name("attempts.py")
#: Files whose mere opening for writing shows that the whole kernel's settings could be changed.
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/printk",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/file-max",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
    "/sys/module/kernel/parameters/panic",
)
NETSHOOT = "nicolaka/netshoot"
USER = 12345


def pod(name: str, *, privileged: bool = False, host_path: bool = False, host: bool = False) -> dict[str, Any]:
    """privileged: as in securityContext. host_path: the node's / on /host. host: the node's namespaces."""
    container: dict[str, Any] = {"name": "main", "image": NETSHOOT, "command": ["sleep", "1h"]}
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 0}
    if privileged:
        container["securityContext"] = {"privileged": True}
    if host_path:
        container["volumeMounts"] = [{"name": "node", "mountPath": "/host"}]
        spec["volumes"] = [{"name": "node", "hostPath": {"path": "/"}}]
    if host:
        spec |= {"hostPID": True, "hostNetwork": True, "hostIPC": True}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


PODS = {
    "a default pod": pod("default"),
    "a privileged pod": pod("privileged", privileged=True),
    "a pod with hostPath /": pod("hostpath", host_path=True),
    "a pod with hostPID, hostNetwork and hostIPC": pod("host", host=True),
    "a privileged pod with all of them": pod("all", privileged=True, host_path=True, host=True),
}
PLACES = [*PODS, "a node"]
WHAT = [
    "a device node",
    "the machines devices",
    "to write the machines files",
    "to look below mounts",
    "kernel wide settings",
    "the callers environment",
    "the state directory",
    "to read the machines files",
    "other processes",
    "the machines network",
    "kernel modules",
    "machine wide calls",
]


@dataclass
class Attacked:
    """A lab with what must not be reached from it, and what each place achieved."""

    cli: Cli
    user: int
    marker: str
    read_only: list[str]
    achieved: dict[str, dict[str, str]] = field(default_factory=dict)

    def machine_files_written(self) -> list[str]:
        return [
            path for folder in [*self.read_only, "/"] if (path := f"{folder}/{self.marker}") and os.path.lexists(path)
        ]


def identity(path: str | Path) -> list[int]:
    status = Path(path).stat()
    return [status.st_dev, status.st_ino]


def disk() -> list[int]:
    """Major and minor of a block device of the machine."""
    words = Path("/proc/partitions").read_text().split("\n")[2].split()
    return [int(words[0]), int(words[1])]


@contextmanager
def attacked(folder: Path, user: int) -> Iterator[Attacked]:
    """A lab that user starts, attacked from every place in it."""
    folder.chmod(0o755)
    cli = Cli(folder / "cli")
    for path in (folder, folder / "cli", cli.temporary):
        os.chown(path, user, user)
    secret = f"secret-{secrets.token_hex(8)}"
    cli.environment |= {"HOME": str(cli.temporary), "AWS_SECRET_ACCESS_KEY": secret}
    if user:
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        plain = cli.argv
        cli.argv = lambda *arguments: [*as_user, *plain(*arguments)]  # type: ignore[method-assign]
        if cli.run("doctor").returncode:
            pytest.skip("this kernel gives ordinary users no namespaces; kubewire doctor says which")
    planted = folder / "planted"
    planted.write_text(secret)
    with ExitStack() as stack:
        stack.callback(lambda: cli.run("down"))
        done = cli.run("up", "--workers", "1")
        assert done.returncode == 0, done.stderr
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{secret}")
        abstract.listen()
        bystander = subprocess.Popen([sys.executable, "-c", f"import time; '{secret}'; time.sleep(3600)"])
        stack.callback(bystander.wait)
        stack.callback(bystander.kill)
        state = cli.state / "default"
        door = json.loads((state / "lab.json").read_text())["port"]
        visitor = stack.enter_context(socket.create_connection(("127.0.0.1", door)))
        trusted = [
            state,
            *(state / name for name in ("kubeconfig", "lab.json", "api.sock", "control.sock", "runtime.sock")),
        ]
        candidates: list[str | Path] = [
            "/etc/shadow",
            "/etc/hostname",
            "/root",
            "/home",
            "/var/log",
            "/boot",
            "/var/lib/dpkg/status",
            planted,
        ]
        hidden = [str(path) for path in candidates if Path(path).exists()]
        read_only = ["/usr", "/usr/bin", str(ROOT / "lab"), str(ROOT / "components"), str(ROOT)]
        marker = f"broken-out-{secret[-8:]}"
        targets = {
            "disk": disk(),
            "readOnly": read_only,
            "marker": marker,
            "settings": SETTINGS,
            "secret": secret,
            "state": str(state),
            "stateFiles": [identity(path) for path in trusted],
            "secrets": hidden,
            "secretFiles": [identity(path) for path in hidden],
            "processes": [bystander.pid, os.getpid()],
            "commandLine": secret,
            "port": listener.getsockname()[1],
            "doorPort": visitor.getpeername()[1],
            "doorClient": visitor.getsockname()[1],
            "abstract": secret,
        }
        lab = Attacked(cli, user, marker, read_only)
        _attack(lab, json.dumps(targets))
        yield lab
        for written in lab.machine_files_written():
            Path(written).unlink()


def _attack(lab: Attacked, targets: str) -> None:
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(PODS.values())})
    applied = lab.cli.run("kubectl", "apply", "-f", "-", input=items)
    assert applied.returncode == 0, applied.stderr
    names = [f"pod/{manifest['metadata']['name']}" for manifest in PODS.values()]
    ready = lab.cli.run("kubectl", "wait", "--for=condition=Ready", "--timeout=60s", *names)
    assert ready.returncode == 0, ready.stderr
    for place, manifest in PODS.items():
        inside = ("kubectl", "exec", "-i", manifest["metadata"]["name"], "--")
        lab.achieved[place] = _from(lab.cli, inside, targets)
    lab.achieved["a node"] = _from(lab.cli, ("node", "worker-1", "--"), targets)


def _from(cli: Cli, inside: tuple[str, ...], targets: str) -> dict[str, str]:
    done = cli.run(*inside, "/usr/bin/python3", "-", targets, input=ATTEMPTS.read_text())
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module", params=[0, USER], ids=["lab of root", "lab of an ordinary user"])
def lab(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    if os.geteuid() != 0:
        pytest.skip("root is needed to start labs as root and as somebody else")
    folder = Path(tempfile.mkdtemp(prefix="kw-"))
    try:
        with attacked(folder, request.param) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", WHAT)
def test_an_attempt_fails(lab: Attacked, place: str, what: str) -> None:
    assert set(lab.achieved[place]) == set(WHAT), "each attempt is judged"
    if what == "to write the machines files":
        assert lab.machine_files_written() == []
        return
    assert lab.achieved[place][what] == ""


def test_another_user_of_the_machine_cannot_get_at_a_lab(lab: Attacked) -> None:
    """Its files, its sockets, its processes' environment and memory."""
    state = lab.cli.state / "default"
    record = json.loads((state / "lab.json").read_text())
    files = [state / name for name in ("kubeconfig", "lab.json", "logs/lab.log")]
    init = record["init_pid"]
    script = f"""
import os, socket
for path in {[str(path) for path in files] + [f"/proc/{init}/environ", f"/proc/{init}/maps"]!r}:
    try:
        open(path).close()
        print(path)
    except OSError:
        pass
for name in ("api.sock", "control.sock", "runtime.sock"):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect({str(state)!r} + "/" + name)
            print(name)
        except OSError:
            pass
for name in ("root", "cwd", "ns/user"):
    try:
        os.stat(f"/proc/{init}/" + name)
        print(name)
    except OSError:
        pass
"""
    other = ["setpriv", "--reuid=23456", "--regid=23456", "--clear-groups", "/usr/bin/python3", "-c", script]
    done = subprocess.run(other, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("path", "code"), [("api/v1/secrets", "403"), ("api", "403"), ("version", "200"), ("readyz", "200")]
)
def test_without_credentials_there_are_version_and_health_alone(lab: Attacked, path: str, code: str) -> None:
    record = json.loads((lab.cli.state / "default/lab.json").read_text())
    url = f"https://127.0.0.1:{record['port']}/{path}"
    done = subprocess.run(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url], capture_output=True, text=True)
    assert done.stdout == code


def test_what_the_machine_reads_of_a_lab_is_read_as_data(lab: Attacked) -> None:
    """A log that is a link, a pipe or a device is not followed, and a command on the machine does not wait for it."""
    from kubewire.lab.state import StateDirectory

    state = StateDirectory(lab.cli.state / "default")
    trap = "kubewire node worker-1"
    script = (
        "cd /var/log/kubewire && ln -s /etc/shadow link.log && mkfifo pipe.log && "
        f"mv lab.log lab.log.before && ln -s /etc/shadow lab.log && echo {trap}"
    )
    assert trap in lab.cli.run("node", "worker-1", "--", "sh", "-c", script).stdout
    try:
        assert [state.read_log(name) for name in ("link.log", "pipe.log", "lab.log", "none.log")] == [""] * 4
    finally:
        undo = "cd /var/log/kubewire && rm link.log pipe.log lab.log && mv lab.log.before lab.log"
        lab.cli.run("node", "worker-1", "--", "sh", "-c", undo)


def test_a_lab_sees_the_folder_of_its_logs_and_nothing_else_that_is_writable_outside(lab: Attacked) -> None:
    done = lab.cli.run("node", "worker-1", "--", "cat", "/proc/1/mountinfo")
    writable = {
        line.split()[4]
        for line in done.stdout.splitlines()
        if line.split()[5].startswith("rw") and re.search(r" - (ext4|xfs|btrfs|overlay|9p|hostfs) ", line)
    }
    on_disk = {path for path in writable if path != "/var/log/kubewire"}
    assert on_disk == set()


def test_every_mount_that_shows_the_machine_opens_no_device(lab: Attacked) -> None:
    done = lab.cli.run("node", "worker-1", "--", "cat", "/proc/1/mountinfo")
    without = [
        line.split()[4]
        for line in done.stdout.splitlines()
        if "nodev" not in line.split()[5] and not line.split()[4].startswith("/dev/")
    ]
    assert without == []
    devices = {line.split()[4] for line in done.stdout.splitlines() if line.split()[4].startswith("/dev/")}
    assert devices <= {
        f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "net/tun", "pts")
    }


def test_a_shell_on_a_node_is_root_of_the_lab_alone(lab: Attacked) -> None:
    done = lab.cli.run("node", "worker-1", "--", "sh", "-c", "env; cat /proc/$$/environ")
    assert lab.cli.environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout
    here = Path("/proc/self/ns/user").stat().st_ino
    inside = lab.cli.run("node", "worker-1", "--", "stat", "-Lc", "%i", "/proc/self/ns/user")
    assert int(inside.stdout) != here


_WATCH = """
import glob, sys
print("watching", flush=True)
while True:
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                if sys.argv[1].encode() in file.read():
                    print(path, flush=True)
                    sys.exit()
        except OSError:
            pass
"""


def test_a_command_on_a_node_never_shows_its_callers_environment(lab: Attacked) -> None:
    """Somebody in the lab looks at all processes for as long as commands start."""
    argv = lab.cli.argv("node", "control-plane", "--", "/usr/bin/python3", "-c", _WATCH)
    quiet = {name: text for name, text in lab.cli.environment.items() if name != "AWS_SECRET_ACCESS_KEY"}
    watched = [*argv, lab.cli.environment["AWS_SECRET_ACCESS_KEY"]]
    # The watcher's own arguments are in its cmdline, not in an environment.
    watcher = subprocess.Popen(watched, env=quiet, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        for _ in range(12):
            assert lab.cli.run("node", "worker-1", "--", "true").returncode == 0
        watcher.terminate()
        assert watcher.stdout.read() == ""


def test_a_command_on_a_node_has_no_descriptor_of_its_caller(lab: Attacked, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("in", "out", "err")]
    for file in files:
        file.touch()
    script = "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; ls -l /proc/self/fd >&2"
    with files[0].open() as given, files[1].open("w") as out, files[2].open("w") as err:
        argv = lab.cli.argv("node", "worker-1", "--", "sh", "-c", script)
        assert subprocess.run(argv, env=lab.cli.environment, stdin=given, stdout=out, stderr=err).returncode == 0
    assert re.fullmatch(r"(pipe:\[\d+\]\n){3}", files[1].read_text())
    assert str(tmp_path) not in files[2].read_text()


def test_what_a_shell_on_a_node_leaves_behind_has_no_way_to_the_terminal(lab: Attacked) -> None:
    """A process that outlives the shell writes to the terminal that the shell had."""
    # It says when it has left the shell's session, whose end would end it.
    stays = "touch /tmp/left; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo LATE; touch /tmp/gone"
    script = f"rm -f /tmp/left; setsid sh -c '{stays}' <&1 & until [ -e /tmp/left ]; do sleep 0.1; done; echo now"
    master, terminal = os.openpty()
    command = lab.cli.argv("node", "worker-1", "--", "sh", "-c", script)
    done = subprocess.run(command, env=lab.cli.environment, stdin=terminal, stdout=terminal, stderr=terminal)
    assert done.returncode == 0
    later = "touch /tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done"
    assert lab.cli.run("node", "worker-1", "--", "sh", "-c", later, timeout=20).returncode == 0
    os.set_blocking(master, False)
    shown = os.read(master, 10_000)
    os.close(terminal)
    os.close(master)
    assert shown == b"now\r\n"


@pytest.mark.parametrize("isolate", ["", "unshare --cgroup", "unshare --user --map-root-user --cgroup --mount"])
def test_a_lab_cannot_get_at_the_cgroup_that_it_is_in(lab: Attacked, isolate: str) -> None:
    """An ordinary user may own it, so it must not be mounted (cgroup.kill); root's is root's of the machine."""
    for kind in ("cgroup2", "cgroup -o none,name=systemd", "cgroup -o memory"):
        script = f"mount -t {kind} none /mnt && ls -ld /mnt && (echo > /mnt/cgroup.procs || echo > /mnt/cgroup.kill)"
        inside = ["unshare", "--mount", *isolate.split(), "sh", "-c", script]
        done = lab.cli.run("node", "worker-1", "--", *inside)
        assert done.returncode != 0
        assert done.stdout == "" or lab.user == 0, "an ordinary user's is not even seen"
