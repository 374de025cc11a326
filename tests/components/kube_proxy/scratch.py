"""A cluster of two nodes in namespaces of its own: run(work) calls work(Fabric) in a forked child and
returns what it returned. When the child ends the kernel removes everything.

    node1 172.18.0.3: cni0 10.244.1.1/24, pods a 10.244.1.2, b 10.244.1.3
    node2 172.18.0.4: cni0 10.244.2.1/24, pod  c 10.244.2.2
    client 172.18.0.100, on the nodes' segment, routes the Services' ranges by node1

and the same in IPv6 (see ADDRESSES). Pods answer on port 8080, in TCP, UDP and SCTP.
"""

from __future__ import annotations

import os
import pickle
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.sctp import SCTP, SCTPChunkInit

from kubewire.components.kernel import namespaces as ns
from kubewire.components.kube_proxy.state.model import IPV4, IPV6

PODS = {"a": ("node1", "10.244.1.2"), "b": ("node1", "10.244.1.3"), "c": ("node2", "10.244.2.2")}
HOSTS = {"node1": "172.18.0.3", "node2": "172.18.0.4", "client": "172.18.0.100"}
BRIDGES = {"node1": "10.244.1.1", "node2": "10.244.2.1"}


@dataclass(frozen=True)
class Addresses:
    """One family's. services: ranges that the client reaches by node1; the first one is the service CIDR."""

    inet: socket.AddressFamily
    pods: dict[str, str]
    hosts: dict[str, str]
    bridges: dict[str, str]
    fabric: str
    cluster_cidr: str
    services: tuple[str, ...]
    pod_bits: int
    host_bits: int

    def in_range(self, index: int, number: int) -> str:
        """The number-th address of a Services' range."""
        return f"{self.services[index].split('/')[0][:-1]}{number}"


ADDRESSES = {
    IPV4: Addresses(
        socket.AF_INET,
        {pod: address for pod, (_, address) in PODS.items()},
        HOSTS,
        BRIDGES,
        "172.18.0.1",
        "10.244.0.0/16",
        ("10.96.0.0/16", "10.98.0.0/24", "10.99.0.0/24"),
        24,
        16,
    ),
    IPV6: Addresses(
        socket.AF_INET6,
        {"a": "fd00:10:244:1::2", "b": "fd00:10:244:1::3", "c": "fd00:10:244:2::2"},
        {"node1": "fd00:172:18::3", "node2": "fd00:172:18::4", "client": "fd00:172:18::100"},
        {"node1": "fd00:10:244:1::1", "node2": "fd00:10:244:2::1"},
        "fd00:172:18::1",
        "fd00:10:244::/48",
        ("fd00:10:96::0/112", "fd00:10:98::0/112", "fd00:10:99::0/112"),
        64,
        64,
    ),
}
SCTP_PROTOCOL = 132
#: Offset in struct tcp_info (linux/tcp.h).
_TCPI_TOTAL_RETRANS = 100


@dataclass(frozen=True)
class Answer:
    """endpoint: the pod that answered; seen: the client's address as it saw it; error: how it failed else;
    retransmitted: segments that the client sent again (TCP), which tells a lost packet from a machine that is busy."""

    endpoint: str = ""
    seen: str = ""
    error: str = ""
    took: float = 0.0
    retransmitted: int = 0


@dataclass
class Fabric:
    sockets: dict[int, tuple[str, socket.socket]] = field(default_factory=dict)
    #: Initiate tag of an SCTP INIT -> where who got it says so.
    inits: dict[int, queue.Queue[str]] = field(default_factory=dict)

    def build(self) -> None:
        ns.mount("tmpfs", "/run", "tmpfs")
        Path("/run/netns").mkdir()
        lines = ["link set lo up", "link add fabric type bridge", "addr add 172.18.0.1/16 dev fabric"]
        lines += ["link set fabric up", "addr add fd00:172:18::1/64 dev fabric nodad"]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        for host in HOSTS:
            self._netns(host)
            self._wire(host, "eth0", bridge="fabric")
            self.ip(host, [f"addr add {a.hosts[host]}/{a.host_bits} dev eth0{_nodad(a)}" for a in ADDRESSES.values()])
        for node in BRIDGES:
            self._node(node)
            # Service traffic between pods on one bridge must meet the rules on its way back too.
            self.shell(node, "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1")
            self.shell(node, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
            # The client reaches ClusterIPs by a node of its own segment: no redirects past that node.
            self.shell(node, "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0")
        self.shell("client", "sysctl -qw net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_redirects=0")
        for a in ADDRESSES.values():
            self.ip("client", [f"route add {cidr} via {a.hosts['node1']}" for cidr in a.services])
        for pod, (node, _) in PODS.items():
            self._netns(pod)
            self._wire(pod, "eth0", bridge="cni0", node=node)
            for a in ADDRESSES.values():
                address = f"addr add {a.pods[pod]}/{a.pod_bits} dev eth0{_nodad(a)}"
                self.ip(pod, [address, f"route add default via {a.bridges[node]}"])

    def _node(self, node: str) -> None:
        other = next(host for host in BRIDGES if host != node)
        self.ip(node, ["link add cni0 type bridge", "link set cni0 up"])
        for a in ADDRESSES.values():
            pods = f"{a.bridges[other][:-1]}0/{a.pod_bits}"
            commands = [
                f"addr add {a.bridges[node]}/{a.pod_bits} dev cni0{_nodad(a)}",
                f"route add {pods} via {a.hosts[other]}",
                # A ClusterIP has no route of its own: without a default route packets end before the rules.
                f"route add default via {a.fabric}",
            ]
            self.ip(node, commands)

    def _netns(self, name: str) -> None:
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.ip(name, ["link set lo up"])

    def _wire(self, name: str, device: str, *, bridge: str, node: str = "") -> None:
        where = ["-n", node] if node else []
        port = f"v{name}"
        subprocess.run(
            ["ip", *where, "link", "add", port, "type", "veth", "peer", "name", device, "netns", name], check=True
        )
        subprocess.run(["ip", *where, "link", "set", port, "up", "master", bridge], check=True)
        if node:
            hairpin = ["type", "bridge_slave", "hairpin", "on"]
            subprocess.run(["ip", *where, "link", "set", port, *hairpin], check=True)
        self.ip(name, [f"link set {device} up"])

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
        """TCP and UDP: answers `POD CLIENT-ADDRESS`. SCTP: tells who asked of whom an INIT came from."""

        def open_sockets() -> None:
            for a in ADDRESSES.values():
                tcp = socket.create_server(("", port), family=a.inet)
                udp = socket.socket(a.inet, socket.SOCK_DGRAM)
                if a.inet == socket.AF_INET6:
                    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                udp.bind(("", port))
                # Kernels seldom have SCTP sockets, but conntrack and NAT know the protocol.
                sctp = socket.socket(a.inet, socket.SOCK_RAW, SCTP_PROTOCOL)
                self.sockets |= {sock.fileno(): (pod, sock) for sock in (tcp, udp, sctp)}

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
                elif sock.type == socket.SOCK_RAW:
                    self._sctp_came(pod, sock)
                else:
                    _, peer = sock.recvfrom(512)
                    sock.sendto(f"{pod} {peer[0]}".encode(), peer)

    def _sctp_came(self, pod: str, sock: socket.socket) -> None:
        packet, peer = sock.recvfrom(2048)
        if sock.family == socket.AF_INET:
            packet = packet[(packet[0] & 15) * 4 :]
        init = SCTP(packet).getlayer(SCTPChunkInit)
        if init is not None and init.init_tag in self.inits:
            self.inits[init.init_tag].put(f"{pod} {peer[0]}")

    def ask(
        self,
        source: str,
        address: str,
        port: int,
        *,
        protocol: str = "TCP",
        sender: str = "",
        sender_port: int = 0,
        timeout: float = 2.0,
    ) -> Answer:
        """sender: one of the source's addresses, if it is not to be the usual one; sender_port: a port of it (TCP)."""
        started = time.monotonic()
        ask = {"TCP": _ask_tcp, "UDP": _ask_udp, "SCTP": self._ask_sctp}[protocol]
        try:
            text = self.inside(source, lambda: ask(address, port, timeout, (sender, sender_port)))
        except OSError as error:
            return Answer(error=type(error).__name__, took=time.monotonic() - started)
        endpoint, seen, *retransmitted = text.split(" ")
        took = time.monotonic() - started
        return Answer(endpoint, seen, took=took, retransmitted=sum(map(int, retransmitted)))

    def _ask_sctp(self, address: str, port: int, timeout: float, _: tuple[str, int]) -> str:
        """Half of a handshake: an INIT goes out, and the pod that gets it says from whom."""
        tag, answers = int.from_bytes(os.urandom(4)), queue.Queue[str]()
        self.inits[tag] = answers
        local = 32768 + tag % 28000
        packet = SCTP(sport=local, dport=port, tag=0) / SCTPChunkInit(init_tag=tag, a_rwnd=65535)
        with socket.socket(_family(address), socket.SOCK_RAW, SCTP_PROTOCOL) as sock:
            sock.sendto(bytes(packet), (address, 0))
        try:
            return answers.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        finally:
            del self.inits[tag]


def _nodad(addresses: Addresses) -> str:
    """No wait for others that may have the address: there are none."""
    return " nodad" if addresses.inet == socket.AF_INET6 else ""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ask_tcp(address: str, port: int, timeout: float, sender: tuple[str, int]) -> str:
    with socket.create_connection((address, port), timeout, sender if any(sender) else None) as sock:
        answer = sock.recv(512).decode()
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_TOTAL_RETRANS + 4)
        return f"{answer} {int.from_bytes(info[_TCPI_TOTAL_RETRANS:], sys.byteorder)}"


def _ask_udp(address: str, port: int, timeout: float, _: tuple[str, int]) -> str:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        sock.send(b"x")
        return sock.recv(512).decode()


def need_ip_vs() -> None:
    """Skips the test where the kernel has no ip_vs: a virtual machine's has (vm/README.md)."""
    if not Path("/proc/net/ip_vs").exists():
        pytest.skip("this kernel has no ip_vs")


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
