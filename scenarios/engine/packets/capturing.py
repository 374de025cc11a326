"""The runner's side of captures: starts one capture program per host, controls it, and reads the
packets that it has written.

A scenario names interfaces as follows:

    worker-1:flannel.1               an interface of a host
    pod:web:eth0, pod:NS/web:eth0    an interface inside a pod
    veth@pod:web                     the node's end of the pod's eth0
    worker-1:veth@pod:web            the same; the pod must run on this node
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewire.scenarios.engine.handle import Background, LabHandle
from kubewire.scenarios.engine.packets import pcapng
from kubewire.scenarios.engine.packets.capture import CONTROL_FD, OUTPUT_FD, Order, Point
from kubewire.scenarios.engine.packets.decode import Packet, decode

READY_WITHIN = 10.0
NAME = re.compile(
    r"""^(?: (?:(?P<seen_from>[a-z0-9-]+):)?veth@pod:(?P<veth>[^:]+)
        | pod:(?P<pod>[^:]+):(?P<inside>[^:@]+)
        | (?P<host>[^:@]+):(?P<interface>[^:@]+) )$""",
    re.VERBOSE,
)


class CaptureFailed(Exception):
    """A capture cannot start or has ended early; the text says where and why."""


@dataclass(frozen=True)
class Sighting:
    """One packet at one interface. point: the interface as the scenario names it; time: nanoseconds
    since 1970."""

    point: str
    time: int
    outbound: bool
    packet: Packet


@dataclass(frozen=True)
class Located:
    """A point, and the host on which its capture program runs."""

    host: str
    point: Point


#: Pod name, with or without namespace -> (node, IP address).
FindPod = Callable[[str], tuple[str, str]]


def locate(name: str, find_pod: FindPod, hosts: Mapping[str, Any]) -> Located:
    """Reads an interface name. Raises CaptureFailed, and what find_pod raises for a pod that does
    not exist."""
    match = NAME.match(name)
    if not match:
        forms = "HOST:INTERFACE, pod:NAME:INTERFACE or veth@pod:NAME"
        raise CaptureFailed(f"{name!r} does not name an interface; write {forms}")
    if pod := match["veth"] or match["pod"]:
        node, ip = find_pod(pod)
        if match["seen_from"] and match["seen_from"] != node:
            raise CaptureFailed(f"{name}: the pod runs on {node}")
        return Located(
            node,
            Point(name, match["inside"] or "eth0", ip, host_side=bool(match["veth"])),
        )
    if match["host"] not in hosts:
        raise CaptureFailed(f"{name}: no host {match['host']}; hosts: {', '.join(hosts)}")
    return Located(match["host"], Point(name, match["interface"]))


def compile_filter(expression: str) -> tuple[tuple[int, int, int, int], ...]:
    """Compiles a pcap-filter(7) expression to classic BPF, by tcpdump. Raises CaptureFailed."""
    done = subprocess.run(
        ["tcpdump", "-y", "EN10MB", "-ddd", expression],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    if done.returncode:
        raise CaptureFailed(f"filter {expression!r}: {done.stderr.strip() or 'tcpdump failed'}")
    lines = [line for line in done.stdout.split("\n")[1:] if line]
    rows = [tuple(int(number) for number in line.split()) for line in lines]
    return tuple((row[0], row[1], row[2], row[3]) for row in rows)


@dataclass
class _Program:
    """One running capture program and the connection to it."""

    host: str
    output: Path
    background: Background
    connection: socket.socket
    buffer: bytes = b""

    def answer(self, within: float) -> dict[str, Any]:
        """The next line from the program. Raises CaptureFailed if it does not answer or has
        ended."""
        deadline = time.monotonic() + within
        while b"\n" not in self.buffer:
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self.connection.recv(65536)
            except TimeoutError:
                why = f"the capture on {self.host} did not answer within {within:g} s"
                raise CaptureFailed(why) from None
            if not part:
                raise CaptureFailed(f"the capture on {self.host} has ended: {self._last_words()}")
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise CaptureFailed(f"cannot capture on {self.host}: {message['error']}")
        return message

    def ask(self, word: str) -> dict[str, Any]:
        """Sends a command and returns the answer."""
        try:
            self.connection.sendall(word.encode() + b"\n")
        except OSError:
            why = self._last_words()
            raise CaptureFailed(f"the capture on {self.host} has ended: {why}") from None
        return self.answer(READY_WITHIN)

    def _last_words(self) -> str:
        done = self.background.stop()
        return done.stderr.decode(errors="replace").strip()[-500:] or f"exit code {done.returncode}"

    def close(self) -> None:
        self.connection.close()
        self.background.stop()


@dataclass
class RunningCapture:
    """A capture on one or several hosts."""

    name: str
    points: tuple[str, ...]
    programs: list[_Program] = field(default_factory=list)
    stopped: bool = False

    @classmethod
    def start(
        cls,
        lab: LabHandle,
        name: str,
        located: Sequence[Located],
        folder: Path,
        *,
        program: tuple[tuple[int, int, int, int], ...] = (),
        max_packets: int = 20_000,
        max_seconds: float = 600.0,
    ) -> RunningCapture:
        """Starts the programs; returns when all sockets capture. Raises CaptureFailed, and leaves
        no program running then."""
        capture = cls(name, tuple(item.point.label for item in located))
        by_host: dict[str, list[Point]] = {}
        for item in located:
            by_host.setdefault(item.host, []).append(item.point)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            for host, points in by_host.items():
                order = Order(tuple(points), program, 2048, max_packets, max_seconds)
                output = folder / f"{name}@{host}.pcapng"
                capture.programs.append(_launch(lab, host, order, output))
            for started in capture.programs:
                started.answer(READY_WITHIN)
        except BaseException:
            for started in capture.programs:
                started.close()
            raise
        return capture

    def sync(self) -> None:
        """Returns when the files contain every packet that has passed so far. Raises
        CaptureFailed."""
        if not self.stopped:
            for item in self.programs:
                item.ask("sync")

    def stop(self) -> None:
        """Ends the programs. The captured packets can still be read. Idempotent."""
        if self.stopped:
            return
        self.stopped = True
        for item in self.programs:
            try:
                item.ask("stop")
            except CaptureFailed:
                pass  # the program has ended already; its file has what it captured
            item.close()

    def read(self) -> pcapng.Capture:
        """The packets of all hosts, in the order of time."""
        return pcapng.merge(pcapng.read(item.output) for item in self.programs)

    def sightings(self) -> list[Sighting]:
        """The decoded packets of all hosts, in the order of time."""
        return sightings(self.read())


def sightings(capture: pcapng.Capture) -> list[Sighting]:
    """The decoded packets of a capture."""
    return [
        Sighting(
            capture.interfaces[record.interface].name,
            record.time,
            record.outbound,
            decode(record.data, record.length),
        )
        for record in capture.records
    ]


def _launch(lab: LabHandle, host: str, order: Order, output: Path) -> _Program:
    """Starts a program. It inherits its connection and its file, so the lab needs no access to a
    folder of the machine."""
    ours, theirs = socket.socketpair()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        background = lab.start(
            host,
            main="kubewire.scenarios.engine.packets.capture:main",
            args=[order.as_json()],
            fds={CONTROL_FD: theirs.fileno(), OUTPUT_FD: file},
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(file)
    return _Program(host, output, background, ours)
