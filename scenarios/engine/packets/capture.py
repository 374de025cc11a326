"""The capture program: runs on one host of the lab and captures there and in the pods of that host.

AF_PACKET sockets with kernel timestamps, one per interface; a pod's socket is opened inside the pod's network
namespace (pinned under /run/netns, CNI's convention, and recognised by the pod's IP) and read from here.

It inherits a connection (CONTROL_FD) and the file for the packets (OUTPUT_FD), and speaks lines of JSON:
    <- {"ready": [{"label": ..., "interface": ...}, ...]}      now every packet is caught; or {"error": "..."}
    -> sync       <- {"synced": N}    all packets that passed before the question are in the file
    -> stop       <- {"stopped": N}   the same, then it ends; so it does at SIGTERM and when the socket closes
Bounded: max_packets in all, max_seconds. Imports little: it starts in some milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kubewire.components.kernel.namespaces import setns
from kubewire.scenarios.engine.packets import links, pcapng

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA, PACKET_OUTGOING = 263, 6, 8, 4
SO_TIMESTAMPNS, SO_RCVBUFFORCE, SO_ATTACH_FILTER = 35, 33, 26
NETNS_DIRECTORY = Path("/run/netns")
#: Descriptors that the program inherits.
CONTROL_FD = 3
OUTPUT_FD = 4


@dataclass(frozen=True)
class Point:
    """Where to capture. label: what the file calls it. interface: the name in its namespace.

    pod_ip: in the namespace of the pod with this address; host_side: at the node's end of that interface.
    """

    label: str
    interface: str
    pod_ip: str = ""
    host_side: bool = False


@dataclass(frozen=True)
class Order:
    """What the program is asked to do. filter: classic BPF instructions (code, jt, jf, k)."""

    points: tuple[Point, ...]
    filter: tuple[tuple[int, int, int, int], ...] = ()
    snaplen: int = 2048
    max_packets: int = 20_000
    max_seconds: float = 600.0

    def as_json(self) -> str:
        """The program's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Order:
        """The inverse of as_json."""
        data: dict[str, Any] = json.loads(text)
        data["points"] = tuple(Point(**point) for point in data["points"])
        data["filter"] = tuple(tuple(instruction) for instruction in data["filter"])
        return cls(**data)


class CaptureError(Exception):
    """A point that cannot be captured; the text says which and what there is instead."""


def main(argv: Sequence[str]) -> int:
    """argv: [Order as JSON]. Exit codes: 0 stopped, 1 a point does not exist or may not be captured."""
    order = Order.parse(argv[0])
    control = socket.socket(fileno=CONTROL_FD)
    wake, woken = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: woken.send(b"x") and None)
    try:
        opened = [(point, *open_point(point, order)) for point in order.points]
    except (CaptureError, OSError) as error:
        _say(control, {"error": str(error)})
        return 1
    with open(OUTPUT_FD, "wb") as file:
        recorder = Recorder(file, order, [(point, item) for point, _, item in opened])
        _say(control, {"ready": [{"label": p.label, "interface": name} for p, name, _ in opened]})
        _loop(recorder, control, wake, order)
        recorder.finish()
    _say(control, {"stopped": recorder.count})
    return 0


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more; the file is what counts


def open_point(point: Point, order: Order) -> tuple[str, socket.socket]:
    """(interface name, capturing socket). Raises CaptureError and OSError."""
    if not point.pod_ip:
        return point.interface, _open(point, point.interface, order)
    with pod_namespace(point.pod_ip, point.label):
        if not point.host_side:
            return point.interface, _open(point, point.interface, order)
        peer = _link(point, point.interface).peer
    for link in links.links():
        if link.index == peer:
            return link.name, _open(point, link.name, order)
    raise CaptureError(f"{point.label}: the other end of the pod's {point.interface} (ifindex {peer}) is not here")


def _link(point: Point, name: str) -> links.Link:
    there = links.links()
    for link in there:
        if link.name == name:
            return link
    raise CaptureError(f"{point.label}: no interface {name}; there are {', '.join(link.name for link in there)}")


@contextmanager
def pod_namespace(ip: str, label: str) -> Iterator[None]:
    """Be in the network namespace of the pod with this address (of a host-network pod: stay)."""
    if ip in links.addresses():
        yield
        return
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not any(_enter_if_of(path, ip) for path in sorted(NETNS_DIRECTORY.glob("*"))):
            raise CaptureError(f"{label}: no network namespace under {NETNS_DIRECTORY} has the address {ip}")
        yield
    finally:
        setns(home)
        os.close(home)


def _enter_if_of(path: Path, ip: str) -> bool:
    """Enter a pinned namespace; whether it has the address. The pod may go away at any moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        setns(fd)
        return ip in links.addresses()
    except OSError:
        return False  # a plain file: its mount is gone
    finally:
        os.close(fd)


def _open(point: Point, name: str, order: Order) -> socket.socket:
    _link(point, name)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    if order.filter:
        _attach(sock, order.filter)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)  # without CAP_NET_ADMIN on the machine
    sock.bind((name, ETH_P_ALL))  # protocol 0 until here: nothing unfiltered gets in
    return sock


def _attach(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    raw = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(raw)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(memory)))


class Recorder:
    """Reads the sockets, writes the file."""

    def __init__(self, file: BinaryIO, order: Order, sockets: Sequence[tuple[Point, socket.socket]]) -> None:
        self.file, self.order = file, order
        self.sockets = {sock.fileno(): (number, sock) for number, (_, sock) in enumerate(sockets)}
        self.count = 0
        self.loopback = {
            number for number, (point, _) in enumerate(sockets) if point.interface == "lo" and not point.host_side
        }
        file.write(pcapng.section())
        for point, _ in sockets:
            file.write(pcapng.interface(pcapng.Interface(point.label), order.snaplen))
        file.flush()

    def drain(self, fds: Sequence[int] | None = None) -> None:
        """Take all that waits in the sockets, then flush."""
        for fd in self.sockets if fds is None else fds:
            number, sock = self.sockets[fd]
            while self.count < self.order.max_packets and self._take(number, sock):
                pass
        self.file.flush()

    def _take(self, number: int, sock: socket.socket) -> bool:
        try:
            data, control, _, address = sock.recvmsg(self.order.snaplen, 128)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # ENETDOWN: the interface went away, as a pod's does when it is deleted
            if error.errno in (100, 19, 6):
                return False
            raise
        outbound = address[2] == PACKET_OUTGOING
        if outbound and number in self.loopback:
            return True  # lo hands every packet over twice; like libpcap, keep the arriving one
        stamp, length = time.time_ns(), len(data)
        for level, kind, value in control:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("ll", value[:16])
                stamp = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                length = struct.unpack_from("=II", value)[1]  # struct tpacket_auxdata: tp_status, tp_len
        self.file.write(pcapng.packet(pcapng.Record(number, stamp, data, length, outbound)))
        self.count += 1
        return True

    def finish(self) -> None:
        """The last packets, then how many the kernel had to drop."""
        self.drain()
        now = time.time_ns()
        for number, sock in self.sockets.values():
            seen, dropped = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self.file.write(pcapng.statistics(number, now, seen, dropped))
            sock.close()


def _loop(recorder: Recorder, control: socket.socket, wake: socket.socket, order: Order) -> None:
    poller = select.poll()
    for fd in (*recorder.sockets, control.fileno(), wake.fileno()):
        poller.register(fd, select.POLLIN)
    deadline, pending = time.monotonic() + order.max_seconds, b""
    while (left := deadline - time.monotonic()) > 0:
        ready = [fd for fd, _ in poller.poll(left * 1000)]
        recorder.drain([fd for fd in ready if fd in recorder.sockets])
        if recorder.count >= order.max_packets:
            for fd in [fd for fd in ready if fd in recorder.sockets]:
                poller.unregister(fd)
        if wake.fileno() in ready:
            return
        if control.fileno() in ready:
            received = control.recv(4096)
            *lines, pending = (pending + received).split(b"\n")
            if not received or b"stop" in lines:
                return
            for _ in (line for line in lines if line == b"sync"):
                recorder.drain()
                _say(control, {"synced": recorder.count})
