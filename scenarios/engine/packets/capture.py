"""The capture program: it runs on one host of the lab and captures packets there and in the pods of
that host.

Scenarios make two kinds of statements about packets: this packet was seen here, and no such packet
was seen there. The second kind is only true if the capture had started before the packet could
pass, and if the packet cannot still be in a buffer. tcpdump gives no such guarantee, so this
program answers explicitly: `ready` after its sockets are bound, and `synced` after everything that
the kernel had queued is in the file.

It opens one AF_PACKET socket per interface (packet(7)), with timestamps of the kernel. All hosts
have the same clock, so the packets of several interfaces can be put into one order. A socket
belongs to the network namespace in which it was created, and may be read from another one. So the
program enters a pod's namespace only to open the socket. It finds the namespace among those that
CNI pins under /run/netns, by the pod's address.

The program inherits a connection (CONTROL_FD) and the file for the packets (OUTPUT_FD), so it needs
no path on the machine. It speaks lines:

    <- {"ready": [{"label": ..., "interface": ...}, ...]}   every packet from now on is captured
    <- {"error": "..."}                                     a point cannot be captured; it ends
    -> sync    <- {"synced": N}    all packets that passed before the question are in the file
    -> stop    <- {"stopped": N}   the same, and the program ends

It also ends on SIGTERM, when the connection is closed, and after max_seconds; it captures at most
max_packets. It imports little, so that it starts within milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
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
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_OUTGOING = 4
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
SO_ATTACH_FILTER = 26
NETNS_DIRECTORY = Path("/run/netns")
#: The descriptors that the program inherits.
CONTROL_FD = 3
OUTPUT_FD = 4


@dataclass(frozen=True)
class Point:
    """An interface at which to capture.

    label: its name in the file. interface: its name in its namespace.
    pod_ip: if set, the interface is in the namespace of the pod with this address.
    host_side: capture at the node's end of the pod's veth pair.
    """

    label: str
    interface: str
    pod_ip: str = ""
    host_side: bool = False


@dataclass(frozen=True)
class Order:
    """The task of the program. filter: classic BPF instructions (code, jt, jf, k)."""

    points: tuple[Point, ...]
    filter: tuple[tuple[int, int, int, int], ...] = ()
    snaplen: int = 2048
    max_packets: int = 20_000
    max_seconds: float = 600.0

    def as_json(self) -> str:
        """The text of the program's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Order:
        """The inverse of as_json."""
        data: dict[str, Any] = json.loads(text)
        data["points"] = tuple(Point(**point) for point in data["points"])
        data["filter"] = tuple(tuple(instruction) for instruction in data["filter"])
        return cls(**data)


class CaptureError(Exception):
    """A point cannot be captured; the text names it and says which interfaces exist."""


def main(argv: Sequence[str]) -> int:
    """Captures. argv: [Order as JSON]. Returns 0, or 1 if a point does not exist or may not be
    captured."""
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
        pass  # the runner has closed the connection; the file keeps what was captured


def open_point(point: Point, order: Order) -> tuple[str, socket.socket]:
    """Opens the socket of a point. Returns the name of the interface and the socket. Raises
    CaptureError, OSError."""
    if not point.pod_ip:
        return point.interface, _open(point, point.interface, order)
    with pod_namespace(point.pod_ip, point.label):
        if not point.host_side:
            return point.interface, _open(point, point.interface, order)
        peer = _link(point, point.interface).peer
    for link in links.links():
        if link.index == peer:
            return link.name, _open(point, link.name, order)
    raise CaptureError(
        f"{point.label}: the other end of the pod's {point.interface} (ifindex {peer}) is not here",
    )


def _link(point: Point, name: str) -> links.Link:
    there = links.links()
    for link in there:
        if link.name == name:
            return link
    names = ", ".join(link.name for link in there)
    raise CaptureError(f"{point.label}: no interface {name}; there are {names}")


@contextmanager
def pod_namespace(ip: str, label: str) -> Iterator[None]:
    """Enters the network namespace of the pod with this address for the time of the context. For a
    pod on the host's network this is the present one."""
    if ip in links.addresses():
        yield
        return
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not any(_enter_if_of(path, ip) for path in sorted(NETNS_DIRECTORY.glob("*"))):
            raise CaptureError(
                f"{label}: no network namespace in {NETNS_DIRECTORY} has the address {ip}",
            )
        yield
    finally:
        setns(home)
        os.close(home)


def _enter_if_of(path: Path, ip: str) -> bool:
    """Enters a pinned namespace, and returns whether it has the address. The pod may end at any
    moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        setns(fd)
        return ip in links.addresses()
    except OSError:
        return False  # a plain file, because the namespace has been unmounted
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
        # SO_RCVBUFFORCE needs CAP_NET_ADMIN in the initial user namespace (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    # The socket was created with protocol 0, so no packet has passed it without the filter.
    sock.bind((name, ETH_P_ALL))
    return sock


def _attach(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    raw = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(raw)
    sock.setsockopt(
        socket.SOL_SOCKET,
        SO_ATTACH_FILTER,
        struct.pack("HL", len(program), ctypes.addressof(memory)),
    )


class Recorder:
    """Reads packets from the sockets and writes them to the file."""

    def __init__(
        self,
        file: BinaryIO,
        order: Order,
        sockets: Sequence[tuple[Point, socket.socket]],
    ) -> None:
        self.file = file
        self.order = order
        self.sockets = {sock.fileno(): (number, sock) for number, (_, sock) in enumerate(sockets)}
        self.count = 0
        self.loopback = set()
        for number, (point, _) in enumerate(sockets):
            if point.interface == "lo" and not point.host_side:
                self.loopback.add(number)
        file.write(pcapng.section())
        for point, _ in sockets:
            file.write(pcapng.interface(pcapng.Interface(point.label), order.snaplen))
        file.flush()

    def drain(self, fds: Sequence[int] | None = None) -> None:
        """Writes all packets that wait in the sockets, then flushes the file."""
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
            # The interface has disappeared, as a pod's does when the pod is deleted.
            if error.errno in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO):
                return False
            raise
        outbound = address[2] == PACKET_OUTGOING
        if outbound and number in self.loopback:
            return True  # lo delivers every packet twice; like libpcap, keep the incoming one
        stamp = time.time_ns()
        length = len(data)
        for level, kind, value in control:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("ll", value[:16])
                stamp = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                # struct tpacket_auxdata begins with tp_status and tp_len.
                length = struct.unpack_from("=II", value)[1]
        self.file.write(pcapng.packet(pcapng.Record(number, stamp, data, length, outbound)))
        self.count += 1
        return True

    def finish(self) -> None:
        """Writes the last packets, and the numbers of packets that the kernel had to drop."""
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
    deadline = time.monotonic() + order.max_seconds
    pending = b""
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
