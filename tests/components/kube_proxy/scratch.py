"""A cluster of two nodes in namespaces of its own: run(work) calls work(Fabric) in a forked child and
returns what it returned. When the child ends the kernel removes everything.

    node1 172.18.0.3: cni0 10.244.1.1/24, pods a 10.244.1.2, b 10.244.1.3
    node2 172.18.0.4: cni0 10.244.2.1/24, pod  c 10.244.2.2
    client 172.18.0.100, on the nodes' segment, routes 10.96.0.0/12 by node1
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.machinery import namespaces as ns

PODS = {"a": ("node1", "10.244.1.2"), "b": ("node1", "10.244.1.3"), "c": ("node2", "10.244.2.2")}
HOSTS = {"node1": "172.18.0.3", "node2": "172.18.0.4", "client": "172.18.0.100"}
BRIDGES = {"node1": "10.244.1.1", "node2": "10.244.2.1"}


@dataclass(frozen=True)
class Answer:
    """endpoint: the pod that answered; seen: the client's address as it saw it; error: how it failed else."""

    endpoint: str = ""
    seen: str = ""
    error: str = ""
    took: float = 0.0


@dataclass
class Fabric:
    sockets: dict[int, tuple[str, socket.socket]] = field(default_factory=dict)

    def build(self) -> None:
        ns.mount("tmpfs", "/run", "tmpfs")
        Path("/run/netns").mkdir()
        lines = ["link set lo up", "link add fabric type bridge", "addr add 172.18.0.1/16 dev fabric"]
        lines.append("link set fabric up")
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        for host, address in HOSTS.items():
            self._netns(host)
            self._wire(host, "eth0", f"{address}/16", bridge="fabric")
        for node, address in BRIDGES.items():
            other = next(host for host in BRIDGES if host != node)
            commands = [
                "link add cni0 type bridge",
                f"addr add {address}/24 dev cni0",
                "link set cni0 up",
                f"route add {BRIDGES[other].rsplit('.', 1)[0]}.0/24 via {HOSTS[other]}",
                # A ClusterIP has no route of its own: without a default route packets end before the rules.
                "route add default via 172.18.0.1",
            ]
            self.ip(node, commands)
            # Service traffic between pods on one bridge must meet the rules on its way back too.
            self.shell(node, "sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.bridge.bridge-nf-call-iptables=1")
            # The client reaches ClusterIPs by a node of its own segment: no redirects past that node.
            self.shell(node, "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0")
        self.ip("client", [f"route add 10.96.0.0/12 via {HOSTS['node1']}"])
        for pod, (node, address) in PODS.items():
            self._netns(pod)
            self._wire(pod, "eth0", f"{address}/24", bridge="cni0", node=node)
            self.ip(pod, [f"route add default via {BRIDGES[node]}"])

    def _netns(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.ip(name, ["link set lo up"])

    def _wire(self, name: str, device: str, address: str, *, bridge: str, node: str = "") -> None:
        where = ["-n", node] if node else []
        port = f"v{name}"
        subprocess.run(
            ["ip", *where, "link", "add", port, "type", "veth", "peer", "name", device, "netns", name], check=True
        )
        subprocess.run(["ip", *where, "link", "set", port, "up", "master", bridge], check=True)
        if node:
            hairpin = ["type", "bridge_slave", "hairpin", "on"]
            subprocess.run(["ip", *where, "link", "set", port, *hairpin], check=True)
        self.ip(name, [f"addr add {address} dev {device}", f"link set {device} up"])

    def ip(self, name: str, commands: list[str]) -> None:
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def shell(self, name: str, command: str) -> str:
        done = subprocess.run(["ip", "netns", "exec", name, "sh", "-c", command], capture_output=True, text=True)
        return done.stdout + done.stderr

    def inside(self, name: str, work: Callable[[], Any]) -> Any:
        """work() with the calling thread in that namespace; sockets it opens stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        ns.enter_path(f"/run/netns/{name}")
        try:
            return work()
        finally:
            ns.setns(home)
            os.close(home)

    def serve(self, pod: str, port: int = 8080) -> None:
        """TCP and UDP: answers `POD CLIENT-ADDRESS`."""

        def open_sockets() -> None:
            tcp = socket.create_server(("", port))
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind(("", port))
            self.sockets |= {tcp.fileno(): (pod, tcp), udp.fileno(): (pod, udp)}

        self.inside(pod, open_sockets)

    def answer_forever(self) -> None:
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            for fd in select.select(list(self.sockets), [], [])[0]:
                pod, sock = self.sockets[fd]
                if sock.type == socket.SOCK_STREAM:
                    connection, peer = sock.accept()
                    with connection:
                        connection.sendall(f"{pod} {peer[0]}".encode())
                else:
                    _, peer = sock.recvfrom(512)
                    sock.sendto(f"{pod} {peer[0]}".encode(), peer)

    def ask(self, source: str, address: str, port: int, *, udp: bool = False, timeout: float = 2.0) -> Answer:
        started = time.monotonic()
        try:
            text = self.inside(source, lambda: (_ask_udp if udp else _ask_tcp)(address, port, timeout))
        except OSError as error:
            return Answer(error=type(error).__name__, took=time.monotonic() - started)
        endpoint, _, seen = text.partition(" ")
        return Answer(endpoint, seen, took=time.monotonic() - started)


def _ask_tcp(address: str, port: int, timeout: float) -> str:
    with socket.create_connection((address, port), timeout) as sock:
        return sock.recv(512).decode()


def _ask_udp(address: str, port: int, timeout: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        sock.send(b"x")
        return sock.recv(512).decode()


def run(work: Callable[[Fabric], Any], *, seconds: int = 60) -> Any:
    """What work returned; an exception in there is raised here with its traceback as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(work, write, seconds)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(raw) if raw else (False, "the child ended without a result")
    if not good:
        raise AssertionError(value)
    return value


def _child(work: Callable[[Fabric], Any], write: int, seconds: int) -> None:
    """unshare, then PID 1 of the new pid namespace does the work: its end is the end of all in there."""
    ns.set_parent_death_signal(signal.SIGKILL)
    result: tuple[bool, Any]
    try:
        ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWNS | ns.CLONE_NEWPID)
        init = os.fork()
        if init:
            os.waitpid(init, 0)
            os._exit(0)
        ns.set_parent_death_signal(signal.SIGKILL)
        signal.alarm(seconds)
        ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
        ns.mount("proc", "/proc", "proc")
        ns.mount("sysfs", "/sys", "sysfs")
        fabric = Fabric()
        fabric.build()
        result = True, work(fabric)
    except BaseException:
        result = False, traceback.format_exc()
    os.write(write, pickle.dumps(result))
    os._exit(0)
