"""A small real network as a LabHandle: two nodes with flannel's VXLAN, pods on veth pairs, an API that stores.

Everything lives in the namespaces of the calling process (tests.scratch.isolated) and ends with it. Enough for the
engine to be tried on real packets; what the API says about pods is what this file really made.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubewire.components.kernel import namespaces
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.handle import Completed, ComponentAction, Host
from kubewire.scenarios.engine.loader import merge
from kubewire.scenarios.engine.scene.api import BUILT_IN

ROOT = Path(__file__).parents[2]
CALL = (
    "import importlib, sys; m, f = sys.argv[1].split(':'); "
    "sys.exit(getattr(importlib.import_module(m), f)(sys.argv[2:]))"
)
SERVICE_IP = "10.96.0.50"


def holder(flags: int) -> int:
    """A process that holds new namespaces and waits for its end; its pid."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        namespaces.set_parent_death_signal(signal.SIGKILL)
        namespaces.unshare(flags)
        os.write(write, b"x")
        while True:
            signal.pause()
    os.close(write)
    os.read(read, 1)
    os.close(read)
    return pid


def sh(command: str) -> None:
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)


class Program:
    """kubewire.scenarios.engine.handle.Background."""

    def __init__(self, argv: Sequence[str], fds: Mapping[int, int]) -> None:
        # A shell puts them in their places; their numbers here are above all that it has open.
        copies = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for number, fd in fds.items()}
        places = "".join(f" {number}<&{copy} {copy}<&-" for number, copy in copies.items())
        command = ["bash", "-c", f'exec "$@"{places}', "bash", *argv]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=list(copies.values()),
        )
        for copy in copies.values():
            os.close(copy)
        self.done: Completed | None = None

    def wait(self, timeout: float | None = None) -> Completed:
        if self.done is None:
            try:
                out, err = self.process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"still runs after {timeout} s") from None
            self.done = Completed(self.process.returncode, out, err)
        return self.done

    def stop(self) -> Completed:
        if self.done is None:
            self.process.terminate()
        return self.wait(10)


@dataclass
class Pod:
    pid: int
    ip: str
    node: int
    undo: str
    server: subprocess.Popen[bytes] | None = None


class NetLab:
    """kubewire.scenarios.engine.handle.LabHandle: nodes worker-1 and worker-2."""

    def __init__(self, spec: LabSpec, name: str, state_dir: Path) -> None:
        self.spec, self.name, self.state_dir = spec, name, state_dir
        self.pids: dict[str, int] = {}
        self.pods: dict[tuple[str, str], Pod] = {}
        self.components: list[tuple[str, str, str]] = []
        self.api = Api(self)
        self.kubeconfig = state_dir / "kubeconfig"
        self._build()
        self._write_kubeconfig()

    def hosts(self) -> Sequence[Host]:
        return [Host("worker-1", "worker", "172.18.0.3"), Host("worker-2", "worker", "172.18.0.4")]

    def _build(self) -> None:
        sh("ip link add fabric type bridge && ip link set fabric up")
        for number, host in enumerate(self.hosts(), 1):
            pid = self.pids[host.name] = holder(namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS)
            sh(
                f"ip link add eth0 netns {pid} type veth peer name port{number}\n"
                f"ip link set port{number} master fabric up"
            )
            self._node(number, pid, host.address)
            self.api.put(
                "nodes",
                {
                    "metadata": {"name": host.name},
                    "spec": {"podCIDR": f"10.244.{number}.0/24"},
                    "status": {"addresses": [{"type": "InternalIP", "address": host.address}]},
                },
            )

    def _node(self, number: int, pid: int, address: str) -> None:
        other = 3 - number
        script = f"""
            mount --make-rprivate / ; mount -t tmpfs tmpfs /run ; mkdir /run/netns ; mount -t sysfs sysfs /sys
            ip link set lo up
            ip address add {address}/16 dev eth0 ; ip link set eth0 up
            ip link add cni0 type bridge ; ip address add 10.244.{number}.1/24 dev cni0 ; ip link set cni0 up
            ip link add flannel.1 address 02:00:00:00:01:0{number} type vxlan id 1 local {address} dev eth0 \
                dstport 8472 nolearning
            ip address add 10.244.{number}.0/32 dev flannel.1 ; ip link set flannel.1 up
            ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
            ip neigh add 10.244.{other}.0 lladdr 02:00:00:00:01:0{other} dev flannel.1 nud permanent
            bridge fdb append 02:00:00:00:01:0{other} dev flannel.1 dst 172.18.0.{2 + other}
            sysctl -qw net.ipv4.ip_forward=1
            iptables -t nat -N KUBE-SERVICES ; iptables -t nat -N KUBE-SVC-TEST ; iptables -t nat -N KUBE-SEP-TEST
            iptables -t nat -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
            iptables -t nat -A KUBE-SERVICES -d {SERVICE_IP}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-TEST
            iptables -t nat -A KUBE-SERVICES -d 10.96.0.99/32 -p tcp -m tcp --dport 80 -j RETURN
            iptables -t nat -A KUBE-SVC-TEST -j KUBE-SEP-TEST
            iptables -t nat -A KUBE-SEP-TEST -p tcp -j DNAT --to-destination 10.244.2.2:8080
        """
        self._inside(pid, script)

    def _inside(self, pid: int, script: str) -> None:
        lines = script.replace(" ; ", "\n")
        subprocess.run(["nsenter", "-t", str(pid), "-n", "-m", "sh", "-e"], input=lines.encode(), check=True)

    def _write_kubeconfig(self) -> None:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": self.api.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        self.kubeconfig.write_text(json.dumps(config))

    def run_pod(self, namespace: str, name: str, node: str, image: str) -> str:
        """Make the pod; its IP."""
        number = int(node[-1])
        used = {item.ip for item in self.pods.values()}
        index = next(n for n in range(2, 250) if f"10.244.{number}.{n}" not in used)
        ip, veth = f"10.244.{number}.{index}", f"veth{index}"
        pid = holder(namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS)
        node_pid = self.pids[node]
        self._inside(
            node_pid, f"ip link add {veth} type veth peer name eth0 netns {pid} ; ip link set {veth} master cni0 up"
        )
        self._inside(
            pid,
            f"mount --make-rprivate / ; ip link set lo up ; ip address add {ip}/24 dev eth0 ; ip link set eth0 up\n"
            f"ip route add default via 10.244.{number}.1",
        )
        pin = f"/run/netns/cni-{name}"
        self._inside(node_pid, f"touch {pin} ; mount --bind /proc/{pid}/ns/net {pin}")
        self.pods[namespace, name] = pod = Pod(pid, ip, node_pid, f"umount {pin} ; rm {pin} ; ip link del {veth}")
        if "agnhost" in image:
            pod.server = self._serve(pid, name)
        return ip

    def end_pod(self, pod: Pod) -> None:
        self._inside(pod.node, pod.undo)
        os.kill(pod.pid, signal.SIGKILL)
        if pod.server:
            pod.server.kill()

    def _serve(self, pid: int, name: str) -> subprocess.Popen[bytes]:
        argv = ["nsenter", "-t", str(pid), "-n", "-m", "unshare", "--uts", "sh", "-c"]
        server = f"hostname {name}; exec {sys.executable} -m kubewire.components.agnhost netexec --http-port 8080 --udp-port 8081"
        return subprocess.Popen([*argv, server], stderr=subprocess.DEVNULL)

    def _enter(self, target: str) -> list[str]:
        if target.startswith("pod:"):
            namespace, name = target[4:].split("/")[:2]
            pod = self.pods.get((namespace, name))
            if not pod:
                raise LookupError(f"no running container for {target!r}")
            return ["nsenter", "-t", str(pod.pid), "-n", "-m"]
        return ["nsenter", "-t", str(self.pids[target]), "-n", "-m"]

    def exec(
        self,
        target: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Completed:
        command = [*self._enter(target), *argv]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still runs after {timeout} s") from None
        return Completed(done.returncode, done.stdout, done.stderr)

    def start(
        self,
        target: str,
        *,
        main: str = "",
        args: Sequence[str] = (),
        argv: Sequence[str] = (),
        fds: Mapping[int, int] | None = None,
    ) -> Program:
        command = [sys.executable, "-c", CALL, main, *args] if main else argv
        return Program([*self._enter(target), *command], fds or {})

    def component(self, name: str, host: str, action: ComponentAction) -> None:
        self.components.append((name, host, action))


class Api:
    """Stores objects; makes pods through the lab. Plain HTTP."""

    def __init__(self, lab: NetLab) -> None:
        self.lab = lab
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.lock = threading.RLock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                with api.lock:
                    status, answer = api.answer(self.command, self.path, body)
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = do_DELETE = _any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, plural: str, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        metadata.setdefault("uid", f"{time.monotonic_ns()}")
        self.objects[plural, metadata.get("namespace", ""), metadata["name"]] = obj

    def answer(self, method: str, url: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(url)
        words = parts.path.strip("/").split("/")
        words = words[2:] if words[0] == "api" else words[3:]
        if not words:
            return 200, {"groups": [], "resources": []}
        namespace = ""
        if words[0] == "namespaces" and len(words) > 2:
            namespace, words = words[1], words[2:]
        plural, name = words[0], words[1] if len(words) > 1 else ""
        if method == "POST":
            return self._create(plural, namespace, body)
        if not name:
            wanted = parse_qs(parts.query).get("labelSelector", [""])[0]
            return 200, {"items": list(self._matching(plural, namespace, wanted))}
        found = self.objects.get((plural, namespace, name))
        if not found:
            return 404, {"reason": "NotFound", "message": f'{plural} "{name}" not found'}
        if method == "PATCH":
            self.objects[plural, namespace, name] = found = merge(found, body)
        if method == "DELETE":
            self._delete(plural, namespace, name)
        return 200, found

    def _create(self, plural: str, namespace: str, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        if (plural, namespace, name) in self.objects:
            return 409, {"reason": "AlreadyExists", "message": f'{plural} "{name}" already exists'}
        if plural == "pods":
            spec = body["spec"]
            ip = self.lab.run_pod(namespace, name, spec["nodeName"], spec["containers"][0]["image"])
            body["status"] = {
                "phase": "Running",
                "podIP": ip,
                "conditions": [{"type": "Ready", "status": "True"}],
            }
        self.put(plural, body)
        if plural == "namespaces":
            self.put("serviceaccounts", {"metadata": {"name": "default", "namespace": name}})
        return 201, body

    def _delete(self, plural: str, namespace: str, name: str) -> None:
        del self.objects[plural, namespace, name]
        if plural == "pods":
            self.lab.end_pod(self.lab.pods.pop((namespace, name)))
        if plural == "namespaces":
            for key in [key for key in self.objects if key[1] == name]:
                self._delete(*key)

    def _matching(self, plural: str, namespace: str, selector: str) -> Iterator[dict[str, Any]]:
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        for (kind, where, _), item in self.objects.items():
            labels = item["metadata"].get("labels", {})
            if kind == plural and namespace in ("", where) and wanted.items() <= labels.items():
                yield item


class NetLabs:
    """kubewire.scenarios.engine.handle.LabFactory; counts its labs."""

    def __init__(self) -> None:
        self.labs: list[NetLab] = []

    @contextmanager
    def __call__(self, spec: LabSpec, name: str) -> Iterator[NetLab]:
        state = Path("/tmp") / name
        state.mkdir()
        lab = NetLab(spec, name, state)
        self.labs.append(lab)
        yield lab


__all__ = ["BUILT_IN", "SERVICE_IP", "NetLab", "NetLabs"]
