"""Hosts as network namespaces of a test's sandbox, wires between them, and packets that are really sent.

A test of a network's rules and routes is a table of flows: the source host, the destination address, the host that
receives the packet, and the source address that it sees. The network's own code writes the rules, called in the host:

    hosts = Hosts("pod", "node")
    hosts.wire("pod", "eth0", "node", "veth1")
    hosts.ip("pod", "address add 10.244.1.2/32 dev eth0")
    with hosts.inside("node"):
        asyncio.run(iptables.ensure(rules))
    assert hosts.sender_of(Flow("to the outside", "pod", "203.0.113.10", "outside", "172.18.0.3")) == "172.18.0.3"
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kubewire.components.kernel import namespaces

NOTHING = ""
#: How long a packet may take on a busy machine, and how long the test waits for one that must not arrive.
_ARRIVES_SECONDS = 5.0
_DOES_NOT_SECONDS = 0.4


@dataclass(frozen=True)
class Flow:
    """A request and its answer. source: a host, which sends from its address `sender` if one is given.

    receiver: the host that listens, on the address `at` if a rule changes the destination. seen: the source address that
    it sees, or NOTHING if no packet may arrive.
    """

    title: str
    source: str
    destination: str
    receiver: str
    seen: str
    sender: str = ""
    at: str = ""
    protocol: str = "UDP"
    port: int = 8080


class Hosts:
    """Network namespaces, which end with the sandbox of the test."""

    def __init__(self, *names: str) -> None:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            self.ip(name, "link set lo up")
            # No address is tentative: no other host can have it.
            self.sysctl(name, "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")

    def ip(self, name: str, *lines: str) -> None:
        """`ip -batch` in a host."""
        text = "".join(f"{line}\n" for line in lines)
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=text, text=True, check=True)

    def run(self, name: str, *argv: str) -> str:
        """Runs a program in a host and returns its output."""
        return subprocess.run(["ip", "netns", "exec", name, *argv], check=True, capture_output=True, text=True).stdout

    def sysctl(self, name: str, *settings: str) -> None:
        self.run(name, "sysctl", "-qw", *settings)

    def wire(self, one: str, device: str, other: str, peer: str) -> None:
        """Connects two hosts by a veth, which is up at both ends."""
        self.ip(one, f"link add {device} type veth peer name {peer} netns {other}", f"link set {device} up")
        self.ip(other, f"link set {peer} up")

    def mac_of(self, name: str, device: str) -> str:
        return self.run(name, "cat", f"/sys/class/net/{device}/address").strip()

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Moves the calling thread into the host. Sockets that it opens remain there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        namespaces.enter_path(f"/run/netns/{name}")
        try:
            yield
        finally:
            namespaces.setns(home)
            os.close(home)

    def senders_of(self, flows: Iterable[Flow]) -> dict[str, str]:
        """The source address that the receiver has seen, by title."""
        return {flow.title: self.sender_of(flow) for flow in flows}

    def sender_of(self, flow: Flow) -> str:
        """The source address that the receiver has seen, or NOTHING; and a note if the answer is lost."""
        seconds = _DOES_NOT_SECONDS if flow.seen == NOTHING else _ARRIVES_SECONDS
        family = socket.AF_INET6 if ":" in flow.destination else socket.AF_INET
        kind = socket.SOCK_DGRAM if flow.protocol == "UDP" else socket.SOCK_STREAM
        with self.inside(flow.receiver):
            listener = socket.create_server if flow.protocol == "TCP" else _bound
            there = listener((flow.at or flow.destination, flow.port), family=family)
        with self.inside(flow.source):
            here = socket.socket(family, kind)
        with there, here:
            there.settimeout(seconds)
            here.settimeout(seconds)
            here.bind((flow.sender, 0))
            try:
                return _exchange(here, there, (flow.destination, flow.port))
            except OSError:
                return NOTHING


def _bound(address: tuple[str, int], *, family: socket.AddressFamily) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.bind(address)
    return opened


def _exchange(here: socket.socket, there: socket.socket, destination: tuple[str, int]) -> str:
    """Sends a request and its answer; the source address of the request. Raises OSError if it does not arrive."""
    here.connect(destination)
    if here.type == socket.SOCK_STREAM:
        connection, sender = there.accept()
        connection.close()
    else:
        here.send(b"request")
        _, sender = there.recvfrom(16)
        try:
            there.sendto(b"answer", sender)
            here.recv(16)
        except OSError as error:
            return f"{sender[0]}, whose answer is lost: {error}"
    return str(sender[0])
